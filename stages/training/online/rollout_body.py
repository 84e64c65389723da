"""Completions that a function of one's own samples: `trl.rollout_func`, called as TRL calls it."""

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tunemill.stages.data.conversations.user_modules import UserFailures
from tunemill.stages.errors import UserError
from tunemill.stages.own_classes import dotted
from tunemill.stages.training.online.engine import Completion, SamplingSettings
from tunemill.stages.training.online.environment_keys import ROLLOUT
from tunemill.stages.training.online.episode import Episode
from tunemill.stages.training.online.episodes_body import Generate, Played, Player, Start, seed_of
from tunemill.stages.training.online.keys import OnlineKeys
from tunemill.stages.training.online.policy_body import asked, digest_of
from tunemill.stages.training.online.reward_calls import Loaded
from tunemill.stages.training.online.reward_process import loaded, seed_random

REQUIRED = ("prompt_ids", "completion_ids", "logprobs")
MASK = "env_mask"
NAN = float("nan")


@dataclass
class Trainer:
    """What the function is given beside the prompts, by the names of TRL's trainer.

    `model` is in evaluation mode and without gradients while the function runs, so no layer is computed again for a
    backward pass; `processing_class` is the tokenizer. `args` has `num_generations`, `max_completion_length`,
    `temperature`, `top_p`, `top_k`, `min_p`, `repetition_penalty`, `seed` and `chat_template_kwargs`; `state` has
    `global_step`, `accelerator` has `device`.
    """

    model: Any
    processing_class: Any
    args: SimpleNamespace
    state: SimpleNamespace
    accelerator: SimpleNamespace
    _generate: Generate
    _seeds: Sequence[int]
    _sampling: SamplingSettings
    _calls: int = 0
    _policies: list[str] = field(default_factory=list)

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[Any]]]:
        """A completion of each row of tokens, by what samples otherwise: `completion_ids` and `logprobs` of each.

        Drawn by seeds that follow from the prompts' own, so a run that goes on draws the same.
        """
        rows = [list(map(int, row)) for row in prompt_ids]
        sampling = self._sampling
        if max_new_tokens is not None:
            sampling = replace(sampling, max_new_tokens=max_new_tokens)
        own = len(rows) == len(self._seeds)
        seeds = [
            seed_of(self._seeds[place if own else 0], self._calls if own else f"{self._calls} {place}")
            for place in range(len(rows))
        ]
        self._calls += 1
        said = self._generate(rows, seeds, sampling)
        self._policies += [one.policy for one in said[:1]]
        return [{"completion_ids": list(one.ids), "logprobs": list(one.log_p)} for one in said]


@contextmanager
def rollout_player(
    config: OnlineKeys, model: Any, words: Any, ends: frozenset[int], step: Callable[[], int]
) -> Iterator[Player]:
    """What samples by the function, until the block ends. Raises UserError where its file does not load."""
    name, files = dotted(str(config.rollout_func)), config.rollout_code or []
    with ExitStack() as local:
        (function,) = loaded(Loaded([name], files), local, ROLLOUT)

        def play(generate: Generate, starts: Sequence[Start], sampling: SamplingSettings) -> list[Played]:
            prompts = [copy.deepcopy(one.prompt.value) for one in starts]
            seeds = [one.seed for one in starts]
            with asked(model) as plain, _seeded(seeds), UserFailures(f"{ROLLOUT}: {name}", files, UserError):
                given = _trainer(config, plain, words, step(), generate, seeds, sampling)
                told = function(prompts, given)
            policy = given._policies[-1] if given._policies else digest_of(model)
            vocabulary = plain.get_input_embeddings().num_embeddings
            return _played(config, name, told, starts, words, ends, policy, vocabulary)

        yield play


def _trainer(
    config: OnlineKeys,
    model: Any,
    words: Any,
    step: int,
    generate: Generate,
    seeds: Sequence[int],
    sampling: SamplingSettings,
) -> Trainer:
    names = (
        "num_generations",
        "max_completion_length",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
    )
    args = SimpleNamespace(
        **{name: getattr(config, name) for name in names},
        seed=config.seed,
        chat_template_kwargs=dict(config.template_variables),
    )
    device = next(model.parameters()).device
    return Trainer(
        model,
        words,
        args,
        SimpleNamespace(global_step=step),
        SimpleNamespace(device=device),
        generate,
        seeds,
        sampling,
    )


@contextmanager
def _seeded(seeds: Sequence[int]) -> Iterator[None]:
    """Random numbers are the same when a part of a round is sampled again, and those of the training go on behind."""
    before, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        seed_random(" ".join(map(str, seeds)))
        torch.manual_seed(seeds[0] % 2**32)
        try:
            yield
        finally:
            random.setstate(before)
            np.random.set_state(of_numpy)


def _played(
    config: OnlineKeys,
    name: str,
    told: Any,
    starts: Sequence[Start],
    words: Any,
    ends: frozenset[int],
    policy: str,
    vocabulary: int,
) -> list[Played]:
    """What the function gave, looked at. Raises UserError, saying what it gave."""
    rows = _rows(name, told, len(starts))
    found = []
    for place, (start, row) in enumerate(zip(starts, rows, strict=True)):
        fault = _fault_of(row, config, vocabulary)
        if fault is not None:
            raise UserError(f"{ROLLOUT}: {name}: completion {place + 1} of {len(starts)}: {fault}")
        ids, mask = tuple(map(int, row["completion_ids"])), tuple(map(bool, row[MASK]))
        log_p = tuple(
            (NAN if one is None else float(one)) if own else 0.0
            for one, own in zip(row["logprobs"], mask, strict=True)
        )
        reason: Any = "stop" if ids[-1] in ends else "length"
        text = str(words.decode(list(ids), skip_special_tokens=True))
        said: Any = [{"role": "assistant", "content": text}] if start.prompt.is_conversation else text
        fields = {key: value for key, value in row.items() if key not in (*REQUIRED, MASK)}
        found.append(
            Played(
                tuple(map(int, row["prompt_ids"])),
                Completion(ids, log_p, reason, start.seed, policy),
                Episode(start.prompt.value, said, mask, fields=fields),
            )
        )
    return found


def _rows(name: str, told: Any, count: int) -> list[dict[str, Any]]:
    """What the function gave, by completion."""
    if not isinstance(told, dict):
        raise UserError(
            f"{ROLLOUT}: {name} gave {type(told).__name__}, and must give a dictionary with {', '.join(REQUIRED)}"
        )
    missing = [key for key in REQUIRED if key not in told]
    if missing:
        raise UserError(
            f"{ROLLOUT}: {name} gave {', '.join(map(str, told)) or 'nothing'}, without {', '.join(missing)}"
        )
    columns = {key: [None] * count if value is None else value for key, value in told.items()}
    for key, value in columns.items():
        if key in (*REQUIRED, MASK) and not isinstance(value, list | tuple):
            raise UserError(
                f"{ROLLOUT}: {name}: {key} is {type(value).__name__}, and must be a list of lists"
            )
        if isinstance(value, list | tuple) and len(value) != count:
            raise UserError(
                f"{ROLLOUT}: {name}: {key} has {len(value)} items for {count} prompts. Give one for each, in order"
            )
    rows = [
        {key: value[place] if isinstance(value, list | tuple) else value for key, value in columns.items()}
        for place in range(count)
    ]
    return [_filled(row) for row in rows]


def _filled(row: dict[str, Any]) -> dict[str, Any]:
    """A row with what may be left out: without a mask all is the model's, without log-probabilities nothing is said."""
    ids = row["completion_ids"]
    count = len(ids) if isinstance(ids, list | tuple) else 0
    row = {**row, MASK: [1] * count if row.get(MASK) is None else row[MASK]}
    return {**row, "logprobs": [None] * count if row["logprobs"] is None else row["logprobs"]}


def _fault_of(row: dict[str, Any], config: OnlineKeys, vocabulary: int) -> str | None:
    """What is wrong with a completion, in words."""
    for key in ("prompt_ids", "completion_ids"):
        ids = row[key]
        if not isinstance(ids, list | tuple) or not all(_is_number(one) for one in ids):
            return f"{key} is {ids!r:.60}, and must be a list of tokens' numbers. Turn a tensor into one by tolist()"
        if not ids:
            return f"{key} has no token"
        if max(ids) >= vocabulary:
            return f"{key} has token {max(ids)}, and the model has {vocabulary}. Use trainer.processing_class"
    for key in ("logprobs", MASK):
        values = row[key]
        if not isinstance(values, list | tuple) or len(values) != len(row["completion_ids"]):
            counted = len(values) if isinstance(values, list | tuple) else repr(values)[:60]
            return f"{key} has {counted} items for {len(row['completion_ids'])} tokens"
    if not all(one is None or isinstance(one, int | float) for one in row["logprobs"]):
        return f"logprobs is {row['logprobs']!r:.60}, and must be a number of each token, or None"
    if not all(one in (0, 1) for one in row[MASK]):
        return f"{MASK} is {row[MASK]!r:.60}, and must be 1 of each token that the model said, else 0"
    for key, most, setting in (
        ("completion_ids", config.max_completion_length, "trl.max_completion_length"),
        ("prompt_ids", config.sequence_len, "sequence_len"),
    ):
        if len(row[key]) > most:
            return f"{key} has {len(row[key])} tokens, and {setting} is {most}. Give fewer, or raise it"
    return _fault_of_fields({key: value for key, value in row.items() if key not in (*REQUIRED, MASK)})


def _fault_of_fields(fields: dict[str, Any]) -> str | None:
    for key, value in fields.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            return f"{key} is {value!r:.60}, which is kept as JSON, and JSON does not hold it ({error})"
    return None


def _is_number(one: Any) -> bool:
    return isinstance(one, int) and not isinstance(one, bool) and one >= 0
