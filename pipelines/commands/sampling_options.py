"""Options of how an answer is generated."""

import argparse

from tunemill.stages.errors import SettingError
from tunemill.stages.models.chat.sampling import MAX_NEW_TOKENS, Sampling


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """`--temperature`, `--top-p`, `--max-new-tokens`, `--seed`, `--stop`."""
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="0: the likeliest token each time (default); above: drawn",
    )
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="draw of the likeliest tokens that make up P"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help=f"longest answer (default: {MAX_NEW_TOKENS})"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="draw the same each time")
    parser.add_argument(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text that ends an answer; may be repeated",
    )


def sampling_of(
    options: argparse.Namespace, temperature: float | None = None, max_new_tokens: int | None = None
) -> Sampling:
    """What the options say, or else the two values of the YAML. Raises SettingError for what makes no sense."""
    temperature = options.temperature if options.temperature is not None else temperature
    length = options.max_new_tokens if options.max_new_tokens is not None else max_new_tokens
    if temperature is not None and not 0 <= temperature <= 100:
        raise SettingError(f"--temperature {temperature}: give 0 or more, such as 0.7")
    if options.top_p is not None and not 0 < options.top_p <= 1:
        raise SettingError(f"--top-p {options.top_p}: give more than 0 and at most 1")
    if length is not None and length < 1:
        raise SettingError(f"--max-new-tokens {length}: give 1 or more")
    if options.seed is not None and not -(2**63) <= options.seed < 2**63:
        raise SettingError(f"--seed {options.seed}: give a number of 64 bits, such as 42")
    if not temperature and (options.top_p is not None or options.seed is not None):
        raise SettingError(
            "--top-p and --seed are of drawn tokens, and here the likeliest is taken: add --temperature 0.7"
        )
    if "" in options.stop:
        raise SettingError("--stop: an empty text ends every answer. Take it out")
    return Sampling(
        temperature=temperature or 0.0,
        top_p=1.0 if options.top_p is None else options.top_p,
        max_new_tokens=MAX_NEW_TOKENS if length is None else length,
        seed=options.seed,
        stop=tuple(options.stop),
    )
