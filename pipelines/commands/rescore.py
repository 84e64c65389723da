"""`tunemill rescore`: what edited rewards say of completions that were kept; nothing is sampled, nothing trained."""

import argparse
from statistics import fmean
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.options import add_command, add_json, add_pipeline, add_state, count_of

if TYPE_CHECKING:
    from tunemill.stages.training.online.browsed import Rescored

ROWS = 10


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "rescore", rescore, text)
    add_pipeline(parser)
    parser.add_argument("--node", default="trained", metavar="NODE", help="default: trained")
    parser.add_argument(
        "-n", "--rows", type=count_of("rows"), default=ROWS, metavar="N", help=f"default: {ROWS}"
    )
    add_state(parser)
    add_json(parser)


def rescore(options: argparse.Namespace) -> int:
    """Print what would have changed. Raises UserError where rewards fail."""
    from tunemill.pipelines.commands.kept_rollouts import kept_of
    from tunemill.pipelines.commands.options import print_json
    from tunemill.pipelines.run.rescore import rescore_kept

    pipeline, store, kept = kept_of(options)
    found = rescore_kept(pipeline, options.node, kept, store)
    if options.json:
        print_json(_as_json(found, options.rows))
    else:
        _print(found, options.rows)
    return 0


def _rewards(found: "Rescored") -> list[tuple[str, list[float | None], list[float | None]]]:
    """Of each reward, its name, and what it said and says of the completions."""
    count = len(found.kept.rollouts)
    before = {
        name: [one.rewards[place] for one in found.kept.rollouts]
        for place, name in enumerate(found.kept.names)
    }
    after = {name: [row[place] for row in found.values_nf] for place, name in enumerate(found.names)}
    named = [
        (name, before.get(name, [None] * count), after.get(name, [None] * count))
        for name in dict.fromkeys([*before, *after])
    ]
    return [*named, ("weighted sum", [one.reward for one in found.kept.rollouts], found.rewards)]


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _print(found: "Rescored", rows: int) -> None:
    from tunemill.pipelines.commands.listing import listing, show

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    groups = found.kept.groups()
    print(f"{len(found.kept.rollouts)} completions of {len(groups)} prompts scored again, 0 tokens generated")
    table = [
        (
            name,
            number(_mean(then)),
            number(_mean(now)),
            str(sum(a != b for a, b in zip(then, now, strict=True))),
        )
        for name, then, now in _rewards(found)
    ]
    show(listing(("rewarded by", "mean then", "mean now", "changed"), table))
    print(f"another best completion: {found.other_best()} of {len(groups)} prompts")
    print(f"counted the other way: {found.other_sign()} of {len(found.kept.rollouts)} completions")
    moved = list(found.moved())[:rows]
    if moved:
        from tunemill.pipelines.commands.rollouts import short

        rows_shown = [
            (number(one.reward), number(now), short(one.asked), short(one.text)) for one, now in moved
        ]
        show(listing(("then", "now", "prompt", "completion"), rows_shown))
    for words in dict.fromkeys(found.failures):
        print(f"failed: {words}")


def _as_json(found: "Rescored", rows: int) -> dict[str, Any]:
    return {
        "completions": len(found.kept.rollouts),
        "groups": len(found.kept.groups()),
        "generated_tokens": 0,
        "by_reward": [
            {
                "name": name,
                "mean_then": _mean(then),
                "mean_now": _mean(now),
                "changed": sum(a != b for a, b in zip(then, now, strict=True)),
            }
            for name, then, now in _rewards(found)
        ],
        "another_best": found.other_best(),
        "counted_the_other_way": found.other_sign(),
        "moved": [{**one.as_json(found.kept.names), "now": now} for one, now in list(found.moved())[:rows]],
        "failures": list(dict.fromkeys(found.failures)),
    }
