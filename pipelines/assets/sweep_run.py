"""A sweep on the command line: its points are computed, and each becomes a run in Dagster."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tunemill.pipelines.assets.run import refuse_untracked
from tunemill.pipelines.graph.plan import Planned, not_in_place
from tunemill.pipelines.graph.sweep import Sweep
from tunemill.pipelines.graph.sweep_plan import PlannedPoint
from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.links import link_result
from tunemill.pipelines.run.materialize import Hear, Result
from tunemill.pipelines.run.observer import unobserved
from tunemill.pipelines.run.sweep import PointRun, SweepRun, Watch
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.store import Store


def run_sweep(
    sweep: Sweep,
    points: Sequence[PlannedPoint],
    store: Store,
    watch: Watch,
    parallel: int = 1,
    launch: Launcher = in_child,
    gpus: Sequence[str] = (),
) -> Iterator[PointRun]:
    """Run the points that are not there yet; each as soon as nothing more becomes of it. Raises ConfigError before."""
    for planned in points:
        refuse_untracked(planned.pipeline, planned.plan)
    for point in SweepRun(points, sweep.settings, store, watch, parallel, launch, gpus).run():
        if point.state != "left out":
            record(point)
        yield point


def record(point: PointRun) -> list[Finished]:
    """Show Dagster what became of a point's nodes; of one in which nothing had to be done it knows already."""
    plan = point.planned.plan
    told = {*point.results, *point.failures}
    nodes = [name for name in not_in_place(plan) if name in told]
    if not nodes:
        for item in plan:
            if item.cached is not None:
                link_result(point.pipeline, item.node, item.cached)
        return []
    # Dagster takes a second to import; a sweep with nothing to do is over by then.
    from tunemill.pipelines.assets.dagster_run import materialize_nodes
    from tunemill.pipelines.report.write import keep_report

    def outcome(name: str, _hear: Hear) -> Result | None:
        if name in point.failures:
            raise point.failures[name]
        return point.results.get(name)

    session = replace(point.session, ahead=outcome, observe=unobserved, results={})
    finished = materialize_nodes(session, _of(plan, nodes), nodes)
    keep_report(point.pipeline, session.store)
    return finished


def _of(plan: Sequence[Planned], nodes: Sequence[str]) -> list[Planned]:
    return [item for item in plan if item.node.name in nodes]
