"""Which finished point of a sweep is the best by a figure, and whether it is more than noise."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.pipelines.config.sweep_keys import SweepSettings
from tunemill.pipelines.graph.lineage import read_lineage
from tunemill.pipelines.graph.sweep_settings import judging
from tunemill.pipelines.run.evaluated import intervals_of
from tunemill.pipelines.run.sweep import PointRun
from tunemill.stages.evaluation.scored import is_scored
from tunemill.stages.evaluation.statistics.directions import Better, better_of

# By which figure a point is judged where nobody says it, the first that is there.
USUAL = ("exact_match", "eval_loss", "last_eval_loss", "last_loss")


@dataclass(frozen=True)
class Judged:
    """A finished point's figure, and its interval where the evaluation says one; `node` is where it comes from."""

    point: PointRun
    node: str
    metric: str
    value: float
    interval: Mapping[str, Any] | None


@dataclass(frozen=True)
class Best:
    """The finished points that have the figure, the best first; `words` say how the first stands beside the second."""

    metric: str
    better: Better
    ranked: Sequence[Judged]
    words: str | None

    def as_json(self) -> dict[str, Any]:
        """The best point, and how it stands beside the second."""
        first = self.ranked[0]
        return {
            "point": first.point.name,
            "pipeline": first.point.pipeline.name,
            "metric": self.metric,
            "better": self.better,
            "node": first.node,
            "value": first.value,
            "interval": None if first.interval is None else dict(first.interval),
            "second": self.ranked[1].point.name if len(self.ranked) > 1 else None,
            "beside_the_second": self.words,
        }


def best_of(points: Sequence[PointRun], settings: SweepSettings) -> Best | None:
    """The best of the points that are finished: one that failed, or was stopped, is never it. None where nothing has
    the figure.
    """
    finished = [point for point in points if point.state == "finished"]
    metric = settings.metric or _usual([_figures(point, settings) for point in finished])
    if metric is None:
        return None
    found = [judged for point in finished if (judged := _judged(point, settings, metric)) is not None]
    better = better_of(metric)
    # Where neither way is better the grid's order stays.
    sign = {"higher": -1.0, "lower": 1.0, "neither": 0.0}[better]
    ranked = sorted(found, key=lambda one: sign * one.value)
    if not ranked:
        return None
    return Best(metric, better, ranked, _beside_the_second(ranked))


def _usual(figures: Sequence[Mapping[str, Any]]) -> str | None:
    """The figure that all points have, and by which most people judge."""
    shared = [name for name in figures[0] if all(name in one for one in figures)] if figures else []
    usual = next((name for name in USUAL if name in shared), None)
    return usual or next((name for name in shared if better_of(name) != "neither"), None)


def _figures(point: PointRun, settings: SweepSettings) -> dict[str, float]:
    """The numbers of the node that judges a point."""
    node = judging(point.pipeline, settings)
    result = None if node is None else point.results.get(node.name)
    metrics = {} if result is None else result.published.manifest["metrics"]
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _judged(point: PointRun, settings: SweepSettings, metric: str) -> Judged | None:
    node = judging(point.pipeline, settings)
    value = _figures(point, settings).get(metric)
    if node is None or value is None:
        return None
    sure = intervals_of(node.stage, point.results[node.name].published.data).get(metric)
    return Judged(point, node.name, metric, value, sure)


def _beside_the_second(ranked: Sequence[Judged]) -> str | None:
    """What the paired statistics say of the best beside the second; None where rows cannot be compared."""
    if len(ranked) < 2 or ranked[0].interval is None:
        return None
    from tunemill.pipelines.report.difference import NothingComparableError, compare_evaluations
    from tunemill.pipelines.report.one_evaluation import Evaluated

    sides = []
    for judged in (ranked[1], ranked[0]):
        data = judged.point.results[judged.node].published.data
        if not is_scored(data):
            return None
        sides.append(Evaluated(judged.point.name, data, read_lineage(data)))
    try:
        return compare_evaluations(sides[0], sides[1], ranked[0].metric).main.words
    except NothingComparableError:
        return None
