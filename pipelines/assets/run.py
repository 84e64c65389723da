"""Bring a pipeline up to date: plan, then let Dagster materialize what is not in place."""

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace

from tunemill.pipelines.config.document import problem_at
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.plan import Planned, make_plan, not_in_place
from tunemill.pipelines.run.ahead import started_ahead
from tunemill.pipelines.run.finished import Finished, State
from tunemill.pipelines.run.links import link_result
from tunemill.pipelines.run.materialize import Session, log_event
from tunemill.pipelines.run.observer import Observer, one_at_a_time, unobserved
from tunemill.pipelines.run.publish import publish
from tunemill.pipelines.run.shared import push
from tunemill.pipelines.run.team import brought, is_light, needed_here
from tunemill.resources.errors import StoreError
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.origins import write_origin
from tunemill.resources.store import Store


def run_pipeline(
    pipeline: Pipeline,
    store: Store,
    observe: Observer = unobserved,
    refresh: Collection[str] = (),
    launch: Launcher = in_child,
    only: Collection[str] | None = None,
) -> list[Finished]:
    """Run what the plan says. Nothing to do costs no import of Dagster. Raises ConfigError before any work."""
    plan = make_plan(pipeline, store, refresh, only)
    # A store that cannot be written need not know it.
    with suppress(OSError):
        store.remember_team()
    needed = needed_here(pipeline, plan)
    if store.team is not None:
        plan = [in_reach(item, store, needed, observe) for item in plan]
    refuse_untracked(pipeline, plan)
    to_do = not_in_place(plan)
    for item in plan:
        # What Dagster is given says so itself.
        if item.node.name not in to_do:
            say_pins(item, observe)
            push_in_place(pipeline, item, store, observe)
    if not to_do:
        # A store that cannot be written need not know it.
        with suppress(OSError):
            write_origin(store.root, pipeline.name, pipeline.document.path.absolute(), pipeline.grid)
        return [_in_place(pipeline, item) for item in plan]
    session = Session(
        pipeline,
        store,
        launch,
        one_at_a_time(observe),
        refresh,
        asked_for=to_do,
        needed=needed,
    )
    with started_ahead(session, to_do) as session:
        # Dagster takes a second to import; a run with nothing to do is over by then.
        from tunemill.pipelines.assets.dagster_run import materialize_nodes

        return materialize_nodes(session, plan, to_do)


def in_reach(item: Planned, store: Store, needed: Collection[str], observe: Observer) -> Planned:
    """What is in place, shared with the team, and with its files here where a run needs them.

    Raises StoreError where the team's is damaged.
    """
    if item.cached is None:
        return item

    def say(text: str) -> None:
        observe(item.node.name, log_event(text))

    if not item.ref_is_current:
        # Its node is materialized, which sees to it.
        return item
    store.share(item.cached, say)
    if not item.cached.elsewhere or not (item.node.name in needed or is_light(item.cached)):
        return item
    if not brought(store, item.cached, say):
        raise StoreError(f"{item.node.name}: run again, and it is computed again")
    return replace(item, cached=store.bring(item.cached, say))


def refuse_untracked(pipeline: Pipeline, plan: Sequence[Planned]) -> None:
    """Raises ConfigError where a training is to come whose tracker is not installed."""
    if pipeline.trackers is not None and any(
        item.node.stage.tracked and item.state == "run" for item in plan
    ):
        document = pipeline.document
        missing = [problem_at((key,), document, "value", why) for key, why in pipeline.trackers.missing()]
        if missing:
            raise ConfigError(document.path, missing)


def push_in_place(pipeline: Pipeline, item: Planned, store: Store, observe: Observer) -> None:
    """Push prepared rows, and publish a model, that are here already. Raises StoreError."""
    for send in (push, publish):
        if item.cached is not None:
            send(
                pipeline, item.node, item.cached, store, lambda text: observe(item.node.name, log_event(text))
            )


def say_pins(item: Planned, observe: Observer) -> None:
    """One line for each pin because of which a node has what it has."""
    lines = [] if item.pin is None else [str(item.pin)]
    lines += [f"takes {name}, which is {pin}" for name, pin in item.pinned_inputs.items()]
    for line in lines:
        observe(item.node.name, {"type": "log", "message": line})


def _in_place(pipeline: Pipeline, item: Planned) -> Finished:
    if item.left_alone:
        return Finished(item.node.name, item.node.stage.name, "left alone", (), 0.0, None, None)
    assert item.cached is not None
    # `output_dir` may be another one than last time, and the store may have moved.
    note = link_result(pipeline, item.node, item.cached)
    state: State = "cached" if item.pin is None else "pinned"
    node, stage = item.node.name, item.node.stage.name
    return Finished(node, stage, state, (), 0.0, item.cached, item.key, note=note, pin=item.pin)
