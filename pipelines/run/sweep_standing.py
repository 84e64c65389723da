"""A sweep as its results lie in the store: nothing is computed."""

from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.graph.sweep_plan import PlannedPoint
from tunemill.pipelines.graph.sweep_settings import training_of
from tunemill.pipelines.run.curves import Curve, curve_of, read_curve
from tunemill.pipelines.run.figures import count_of
from tunemill.pipelines.run.materialize import Result, Session
from tunemill.pipelines.run.sweep import RUN, PointRun
from tunemill.resources.store import Store


def standing_point(planned: PlannedPoint, store: Store) -> PointRun:
    """A point with what is there of it; `finished` where that is all."""
    wanted = [item for item in planned.plan if not item.left_alone]
    results = {
        (RUN, item.node.name): Result(item.cached, (), 0.0, pin=item.pin)
        for item in wanted
        if item.cached is not None
    }
    training = training_of(planned.pipeline)
    own = next((item for item in wanted if item.node is training), None)
    point = PointRun(planned, Session(planned.pipeline, store, results=results))
    point.key, point.curve = (None, Curve()) if own is None else (own.key, _curve(own, store))
    missing = len(wanted) - len(results)
    if planned.left_out is not None:
        point.state, point.why = "left out", planned.left_out
    elif missing:
        point.state, point.why = "not finished", f"{count_of(missing, 'node')} to be computed"
    else:
        point.state = "finished"
    return point


def _curve(training: Planned, store: Store) -> Curve:
    """The losses of a training, also of one that was stopped."""
    if training.cached is not None:
        return curve_of(training.cached.manifest)
    return Curve() if training.key is None else read_curve(store.root, training.key)
