"""`tunemill rollouts`: what a model answered while it was trained on its own completions, and what that was worth."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.options import add_command, add_json, add_pipeline, add_state, count_of

if TYPE_CHECKING:
    from tunemill.stages.training.online.browsed import Kept, Rollout

SHOW = ("worst", "best", "changed", "all")
ROWS, TEXT = 10, 200


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "rollouts", rollouts, text)
    add_pipeline(parser)
    parser.add_argument("--node", default="trained", metavar="NODE", help="default: trained")
    parser.add_argument(
        "--show",
        choices=SHOW,
        default="worst",
        help="completions by reward, or the prompts whose reward has changed most",
    )
    parser.add_argument("--reward", metavar="NAME", help="one of the rewards; default: their weighted sum")
    parser.add_argument("--above", type=float, metavar="X", help="only rewards above it")
    parser.add_argument("--below", type=float, metavar="X", help="only rewards below it")
    parser.add_argument(
        "--round", type=count_of("a round", least=1), metavar="N", help="only of one round, from 1"
    )
    parser.add_argument(
        "-n", "--rows", type=count_of("rows"), default=ROWS, metavar="N", help=f"default: {ROWS}"
    )
    add_state(parser)
    add_json(parser)


def rollouts(options: argparse.Namespace) -> int:
    """Print completions, or prompts. Raises UserError where none were kept."""
    from tunemill.pipelines.commands.kept_rollouts import kept_of
    from tunemill.pipelines.commands.listing import listing, show
    from tunemill.pipelines.commands.options import print_json
    from tunemill.stages.training.online.browsed import changes

    *_, kept = kept_of(options)
    if options.show == "changed":
        found = changes(kept, options.reward)[: options.rows]
        if options.json:
            print_json([{**vars(one), "change": one.by} for one in found])
            return 0
        rows = [
            (
                short(one.asked),
                str(one.rounds[0]),
                f"{one.means[0]:.3f}",
                str(one.rounds[1]),
                f"{one.means[1]:.3f}",
            )
            for one in found
        ]
        show(listing(("prompt", "round", "mean", "round", "mean"), rows))
        return 0
    chosen = _chosen(kept, options)
    if options.json:
        print_json([one.as_json(kept.names) for one in chosen])
        return 0
    headings = (
        "round",
        "worth",
        *(kept.names if len(kept.names) > 1 else ()),
        "ended",
        "prompt",
        "completion",
    )
    show(listing(headings, [_row(one, len(kept.names) > 1) for one in chosen]))
    return 0


def _chosen(kept: "Kept", options: argparse.Namespace) -> list["Rollout"]:
    """The completions that are asked for, in the order that is asked for."""
    reward = kept.reward_of(options.reward)
    found = []
    for one in kept.rollouts:
        value = reward(one)
        of_round = options.round is None or one.round == options.round
        above = options.above is None or (value is not None and value > options.above)
        below = options.below is None or (value is not None and value < options.below)
        if of_round and above and below and (value is not None or options.show == "all"):
            found.append(one)
    if options.show != "all":
        found.sort(key=lambda one: reward(one) or 0.0, reverse=options.show == "best")
    return found[: options.rows]


def _row(one: "Rollout", with_parts: bool) -> Sequence[str]:
    parts = [_number(value) for value in one.rewards] if with_parts else []
    return (str(one.round), _number(one.reward), *parts, one.finish_reason, short(one.asked), short(one.text))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def short(text: str) -> str:
    """A text on one line, cut where it is long."""
    plain = " ".join(text.split())
    return plain if len(plain) <= TEXT else f"{plain[: TEXT - 3]}..."
