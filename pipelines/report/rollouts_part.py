"""What the report tells of the completions that a training has kept: rewards by round, the worst, the best."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from tunemill.pipelines.run.figures import count_of, figure
from tunemill.pipelines.run.pictures import Point, curves_svg
from tunemill.resources.store import Published
from tunemill.stages.errors import UserError

if TYPE_CHECKING:
    from tunemill.stages.training.online.browsed import Change, Kept, Rollout

SHOWN = 8
TOTAL = "weighted sum"


@dataclass(frozen=True)
class Listed:
    """A table with its title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class RolloutsPart:
    """A node that learned from its own completions: what was kept, the mean of each reward by round as SVG, tables."""

    node: str
    words: str
    svg: str
    tables: Sequence[Listed]


def rollouts_part(node: str, published: Published) -> RolloutsPart | None:
    """Read it out of the artifact's logs; None where it has kept none."""
    # pyarrow takes a moment, for which only pipelines with rollouts wait.
    from tunemill.stages.training.online.browsed import changes, has_kept, read_kept

    folder = published.folder
    if not has_kept(folder):
        return None
    try:
        kept = read_kept(folder)
    except (OSError, UserError):
        return None
    rounds = {one.round for one in kept.rollouts}
    words = f"{count_of(len(kept.rollouts), 'completion')} of {count_of(len(rounds), 'round')} kept"
    judged = sorted(
        (one for one in kept.rollouts if one.reward is not None), key=lambda one: one.reward or 0.0
    )
    tables = [
        _listed("the worst completions", kept, judged[:SHOWN]),
        _listed("the best completions", kept, judged[::-1][:SHOWN]),
        _changed(changes(kept)[:SHOWN]),
    ]
    svg = curves_svg(means(kept), "round", "mean reward", falling=False)
    return RolloutsPart(node, words, svg, [one for one in tables if one.rows])


def means(kept: "Kept") -> dict[str, list[Point]]:
    """The mean of each reward, and of their weighted sum, in each round that was kept."""
    found: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    several = len(kept.names) > 1
    for one in kept.rollouts:
        named = [*zip(kept.names, one.rewards, strict=True), *([(TOTAL, one.reward)] if several else ())]
        for name, value in named:
            if value is not None:
                found[name][one.round].append(value)
    return {
        name: [(float(number), fmean(values)) for number, values in sorted(rounds.items())]
        for name, rounds in found.items()
    }


def _listed(title: str, kept: "Kept", rollouts: Sequence["Rollout"]) -> Listed:
    parts = kept.names if len(kept.names) > 1 else ()
    return Listed(
        title,
        ["round", "worth", *parts, "ended", "prompt", "completion"],
        [
            [
                str(one.round),
                figure(one.reward),
                *(figure(value) for value in (one.rewards if parts else ())),
                one.finish_reason,
                one.asked,
                one.text,
            ]
            for one in rollouts
        ],
    )


def _changed(found: Sequence["Change"]) -> Listed:
    rows = [
        [
            one.asked,
            str(one.rounds[0]),
            figure(one.means[0]),
            str(one.rounds[1]),
            figure(one.means[1]),
            figure(one.by),
        ]
        for one in found
    ]
    return Listed(
        "prompts whose mean reward has changed most", ["prompt", "round", "mean", "round", "mean", "by"], rows
    )
