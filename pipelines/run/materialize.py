"""A node becomes an artifact: find inputs, ask the store, launch, publish. Knows no Dagster."""

import os
import re
import shlex
import socket
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tunemill.pipelines.config.machine import visible_gpus
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import (
    comparable,
    identify_sources,
    looked_at_by,
    upstream_of,
    with_upstream,
)
from tunemill.pipelines.graph.lineage import lineage_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.pinned import Pinned, idle_because, pinned_artifact
from tunemill.pipelines.graph.plan import (
    explain,
    node_ref,
    pins_of_others,
    refuse_refresh,
    refuse_replacing,
    resolve,
    upstream_asset,
)
from tunemill.pipelines.graph.provenance import described
from tunemill.pipelines.graph.resolved import Resolved
from tunemill.pipelines.run.call import make_call
from tunemill.pipelines.run.limits import limited
from tunemill.pipelines.run.links import link_result
from tunemill.pipelines.run.observer import Observer, unobserved
from tunemill.pipelines.run.publish import publish
from tunemill.pipelines.run.shared import pull, push
from tunemill.pipelines.run.spread import spread_call
from tunemill.pipelines.run.suspects import with_origins
from tunemill.pipelines.run.team import as_input, brought, is_light
from tunemill.resources.building import Building
from tunemill.resources.environment import recorded_environment, seeing
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.lease import lease
from tunemill.resources.local import LONGEST_NAME, short_name
from tunemill.resources.origins import write_origin
from tunemill.resources.pins import Pin
from tunemill.resources.redaction import redacted, redacted_document, secrets_in
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Published, Store
from tunemill.stages.artifacts import Artifact
from tunemill.stages.errors import UserError


@dataclass(frozen=True)
class Result:
    """What became of a node in a run. `reasons` say why it was computed; there are none for a cached one.

    `note` says what is not as asked although the artifact is. `pin` is what kept the artifact whatever the YAML asks
    for; what is `left_alone` was not looked at, because only pinned nodes would need it.
    """

    published: Published
    reasons: tuple[str, ...]
    seconds: float
    note: str | None = None
    pin: Pin | None = None
    left_alone: bool = False

    @property
    def computed(self) -> bool:
        return bool(self.reasons)

    @property
    def state(self) -> Literal["cached", "computed", "pinned", "left alone"]:
        if self.left_alone:
            return "left alone"
        if self.pin is not None:
            return "pinned"
        return "computed" if self.computed else "cached"


Hear = Callable[[dict[str, Any]], None]


def not_ahead(_name: str, _hear: Hear) -> Result | None:
    """Nothing was started before its turn."""
    return None


@dataclass
class Session:
    """What the assets of one pipeline share: the store, the launcher, who watches, what this process did.

    `results` is keyed by run and node, so that every node of a run reads the artifacts of the same run. `asked_for` are
    nodes to bring up to date although only pinned nodes would need them. `ahead` gives what became of a node that was
    started before its turn, None where it was not. `begun` says when each run computed first. `needed` are the nodes
    whose files are brought here from a team's store although nothing is computed from them: all, where it is None.
    `gpu` is the one that stages see which use one; all that this process sees, where it is None.
    """

    pipeline: Pipeline
    store: Store
    launch: Launcher = in_child
    observe: Observer = unobserved
    refresh: Collection[str] = ()
    asked_for: Collection[str] = ()
    results: dict[tuple[str, str], Result] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    needed: Collection[str] | None = None
    ahead: Callable[[str, Hear], Result | None] = not_ahead
    gpu: str | None = None


def materialize(
    session: Session, node: Node, run_id: str, observe: Callable[[dict[str, Any]], None]
) -> Result:
    """Find the inputs, ask the store, launch on a miss, point the node's ref to the artifact.

    What the node only looks at is brought up to date on a miss: nothing else has waited for it. A pinned node keeps
    what it has.
    """
    started = time.monotonic()
    session.begun.setdefault(run_id, started)
    store, stage = session.store, node.stage

    def say(message: str) -> None:
        observe({"type": "log", "message": message})

    if node.name in session.refresh:
        refuse_refresh(session.pipeline, [node.name], store.pins.of(session.pipeline.name))
    if (pinned := _take_pinned(session, node, say)) is not None:
        say(str(pinned.pin))
        return _finish(session, node, Result(pinned.artifact, (), 0.0, pin=pinned.pin), started, observe)
    inputs = find_inputs(session, node, run_id)
    for name, pin in pins_of_others(node, store).items():
        say(f"takes {name}, which is {pin}")
    node = described(session.pipeline, node, inputs)
    resolved = resolve(node, session.pipeline.document, store, inputs)
    refresh, reasons = node.name in session.refresh, tuple[str, ...]()
    if refresh:
        refuse_replacing(node, resolved.key, store)
    found = resolved.found if refresh else take(session, node, resolved, say)
    if isinstance(found, Absent) or refresh:
        why = why_compute(session, node, replace(resolved, found=found))
        inputs |= looked_at(session, node, run_id)
        full_name = f"{session.pipeline.name}/{node.name}"
        with store.building(stage.name, resolved.key, say, inputs.values(), full_name) as building:
            # Another process may have computed it while this one waited.
            found = resolved.found if refresh else take(session, node, resolved, say)
            if isinstance(found, Absent) or refresh:
                if isinstance(found, Absent) and found.damage:
                    aside = store.set_aside(stage.name, resolved.key)
                    say(f"cache miss: {found.reason}; set aside in {aside}, computing it again")
                inputs = {name: as_input(store, node, name, given, say) for name, given in inputs.items()}
                pulled = None if refresh else _pull(session, node, resolved, building, say)
                found, reasons = (
                    (_compute(session, node, resolved, inputs, building, run_id, observe), why)
                    if pulled is None
                    else (pulled, ())
                )
    return _finish(session, node, Result(found, reasons, 0.0), started, observe)


def _finish(
    session: Session, node: Node, result: Result, started: float, observe: Callable[[dict[str, Any]], None]
) -> Result:
    """Push and link the result, and say that it is done."""
    if not result.computed:
        # What was computed just now has been shared, or could not be.
        session.store.share(result.published, lambda text: observe(log_event(text)))
    push(session.pipeline, node, result.published, session.store, lambda text: observe(log_event(text)))
    publish(session.pipeline, node, result.published, session.store, lambda text: observe(log_event(text)))
    note = link_result(session.pipeline, node, result.published)
    if note is not None:
        observe({"type": "log", "message": note})
    done = replace(result, seconds=time.monotonic() - started, note=note)
    observe({"type": "done", "state": done.state, "seconds": done.seconds})
    return done


def log_event(message: str) -> dict[str, Any]:
    """The event of something that is said."""
    return {"type": "log", "message": message}


def _pull(
    session: Session, node: Node, resolved: Resolved, building: Building, say: Callable[[str], None]
) -> Published | None:
    """What another machine has prepared and pushed, with the node's ref pointed to it."""
    with session.store.unpruned():
        found = pull(session.pipeline, node, resolved.document, building, session.store, say)
        if found is not None:
            point(session, node, found)
    return found


def _take_pinned(session: Session, node: Node, say: Callable[[str], None]) -> Pinned | None:
    """What the node is pinned to, with its ref pointed to it; of a team's store with its files here, if needed."""

    def point_to_it() -> Pinned | None:
        with session.store.unpruned():
            found = pinned_artifact(session.pipeline.name, node, session.store)
            if found is not None:
                point(session, node, found.artifact)
        return found

    found = point_to_it()
    if found is not None and _is_to_come(session, node, found.artifact):
        brought(session.store, found.artifact, say)
        found = point_to_it()
    return found


def _is_to_come(session: Session, node: Node, found: Published) -> bool:
    """Whether the files of what only the team has are needed here."""
    return found.elsewhere and (session.needed is None or node.name in session.needed or is_light(found))


def leave_alone(session: Session, node: Node, selected: Collection[str]) -> Result | None:
    """What the node has now, where nobody needs it anew: only pinned nodes of the run are made from it.

    None where it was asked for: `selected` without those nodes, or by a word of a command line; and where it has
    nothing.
    """
    pipeline, store = session.pipeline, session.store
    because = idle_because(pipeline, store.pins.of(pipeline.name)).get(node.name, ())
    is_meant = not any(name in selected for name in because)
    if not because or is_meant or node.name in session.asked_for:
        return None
    ref = node_ref(pipeline, node, store)
    found = Absent("") if ref is None else store.lookup(ref.stage, ref.key)
    return Result(found, (), 0.0, left_alone=True) if isinstance(found, Published) else None


def take(session: Session, node: Node, resolved: Resolved, say: Callable[[str], None]) -> Published | Absent:
    """What the store has, with the node's ref pointed to it; of a team's store with its files here, if needed."""
    found = _point_to_found(session, node, resolved)
    if not isinstance(found, Published) or not _is_to_come(session, node, found):
        return found
    brought(session.store, found, say)
    return _point_to_found(session, node, resolved)


def _point_to_found(session: Session, node: Node, resolved: Resolved) -> Published | Absent:
    with session.store.unpruned():
        found = session.store.lookup(node.stage.name, resolved.key)
        if isinstance(found, Published):
            point(session, node, found)
    return found


def point(session: Session, node: Node, published: Published) -> None:
    """Set the node's ref, and note which YAML it is the node of."""
    pipeline = session.pipeline
    write_origin(session.store.root, pipeline.name, pipeline.document.path.absolute(), pipeline.grid)
    ref = Ref(published.stage, published.key, published.digest)
    session.store.refs.write(session.pipeline.name, node.name, ref)


def why_compute(session: Session, node: Node, resolved: Resolved) -> tuple[str, ...]:
    """Why the node's artifact must be computed, now that everything upstream is known."""
    if isinstance(resolved.found, Published):
        return ("asked for with --refresh",)
    return explain(session.store, node_ref(session.pipeline, node, session.store), resolved, node)


def find_inputs(session: Session, node: Node, run_id: str) -> dict[str, Published]:
    """The artifact of every upstream node: from this run, or else what its ref points to now."""
    found: dict[str, Published] = {}
    for upstream in upstream_of(node):
        if (run_id, upstream) in session.results:
            found[upstream] = session.results[run_id, upstream].published
            continue
        own = not upstream.startswith(ASSET_SCHEME)
        asset = f"{ASSET_SCHEME}{session.pipeline.name}/{upstream}" if own else upstream
        match upstream_asset(asset, session.store):
            case Published() as published:
                check_type(node, upstream, published)
                found[upstream] = published
            case Absent(reason=reason):
                reason = "it has no artifact yet, or a damaged one; materialize it first" if own else reason
                raise StoreError(f"{node.name} needs {upstream}: {reason}")
    return found


def looked_at(session: Session, node: Node, run_id: str) -> dict[str, Published]:
    """The artifacts that a node only looks at, made from what they are made from now.

    What the node itself is made from stays as it has read it. Raises StoreError where one cannot be made.
    """
    pipeline, names = session.pipeline, looked_at_by(node)
    pinned = session.store.pins.of(pipeline.name)
    needed = with_upstream(pipeline, names, pinned) - with_upstream(pipeline, upstream_of(node), pinned)
    for other in pipeline.nodes:
        if other.name in needed:
            _bring_up_to_date(session, other, node, run_id)
    return {name: session.results[run_id, name].published for name in names}


def _bring_up_to_date(session: Session, other: Node, beside: Node, run_id: str) -> None:
    if (run_id, other.name) in session.results:
        return

    def observe(event: dict[str, Any]) -> None:
        if event["type"] != "done" or event["state"] not in ("cached", "pinned"):
            session.observe(other.name, event)

    try:
        session.results[run_id, other.name] = materialize(session, other, run_id, observe)
    except (ConfigError, LaunchError, StoreError, UserError) as error:
        message = redacted(str(error), secrets_in(other.config.model_dump(mode="json"), os.environ))
        observe({"type": "failure", "message": message})
        raise StoreError(
            f"{beside.name} looks at {other.name} while it runs, which failed: {message}"
        ) from None


def check_type(node: Node, upstream: str, published: Published) -> None:
    """Raises StoreError where another pipeline's node is not what this one takes."""
    wanted = [
        node.stage.inputs[name].artifact.__name__ for name, ups in node.inputs.items() if upstream in ups
    ]
    made = published.manifest["artifact"]
    if not set(wanted) <= set(made):
        hint = " (an adapter is no model: take `merged`)" if "Adapter" in made else ""
        raise StoreError(
            f"{upstream} is of type {made[0]}, and {node.name} takes {' and '.join(wanted)}; name a node that makes one"
            f"{hint}"
        )


def _compute(
    session: Session,
    node: Node,
    resolved: Resolved,
    inputs: Mapping[str, Published],
    building: Building,
    run_id: str,
    observe: Callable[[dict[str, Any]], None],
) -> Published:
    started, at = time.monotonic(), datetime.now(UTC)
    display: dict[str, Any] = {"metrics": {}, "tables": [], "plots": []}
    suspects: dict[str, list[int]] = {}

    def sink(event: dict[str, Any]) -> None:
        match event["type"]:
            case "summary":
                display["metrics"] |= event["metrics"]
            case "table":
                # One of the same title, of an earlier step, has had its time.
                before = [table for table in display["tables"] if table["title"] != event["title"]]
                display["tables"] = [*before, event]
            case "plot":
                display["plots"].append(event)
            case "suspects":
                suspects[event["input"]] = event["rows"]
        observe(event)

    # Before the work: afterwards a pin may be another one, or be damaged.
    edges = {up: _edge(session, up, given) for up, given in inputs.items()}
    observe({"type": "start", "key": resolved.key})
    with (
        device(session, node, observe),
        _with_its_log_named(session, node),
        _with_origins(session, node, inputs, suspects),
    ):
        call = spread_call(
            make_call(node, inputs, building, session.store.root), node, session.pipeline, resolved.key
        )
        session.launch(limited(call, session.pipeline.limits, session.begun[run_id]), sink)
    check_unchanged(session, node, resolved, inputs)
    secrets = secrets_in(node.config.model_dump(mode="json"), os.environ)
    facts = {
        "artifact": [item.__name__ for item in node.stage.output.__mro__ if issubclass(item, Artifact)],
        "pipeline": session.pipeline.name,
        "node": node.name,
        "config": redacted_document(node.config.model_dump(mode="json"), secrets),
        "inputs": {name: [edges[up] for up in ups] for name, ups in node.inputs.items()},
        "sources": redacted_document(node.sources, secrets),
        "host": socket.gethostname(),
        "environment": recorded_environment(seeing(session.gpu, os.environ)),
        "started": at.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 3),
        **display,
    }
    ready = session.store.prepare(
        building,
        resolved.document,
        facts,
        lambda digest: redacted_document(
            lineage_of(session.pipeline, node, resolved, digest, facts, inputs), secrets
        ),
    )
    with session.store.unpruned():
        published = session.store.publish(building, ready)
        point(session, node, published)
    shared = session.store.share(
        published,
        lambda text: observe(log_event(text)),
        building.team_lease,
        replacing=node.name in session.refresh,
    )
    if shared is not published:
        with session.store.unpruned():
            point(session, node, shared)
    return shared


def _edge(session: Session, upstream: str, given: Published) -> dict[str, Any]:
    """What an input was, and whether it was pinned."""
    own = not upstream.startswith(ASSET_SCHEME)
    name = f"{session.pipeline.name}/{upstream}" if own else upstream.removeprefix(ASSET_SCHEME)
    pin = session.store.pins.read(*name.split("/", 1))
    edge = {"node": upstream, "key": given.key, "digest": given.digest}
    if pin is None or pin.key != given.key:
        return edge
    return {**edge, "pinned": {"since": pin.since, "reason": pin.reason}}


@contextmanager
def device(session: Session, node: Node, observe: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Hold the GPUs that this process sees while a GPU stage runs; nothing to hold for other stages.

    A lease and not a Dagster pool: the claim of a killed run on a pool is never given back by itself, and a run
    that waits for a pool can neither say so nor be interrupted.
    """
    if node.stage.device != "gpu":
        yield
        return
    folder, names = session.store.root / "devices", visible_gpus(seeing(session.gpu, os.environ))
    with ExitStack() as held:
        # All in one order, so that no two wait for each other.
        for gpu in sorted({re.sub(r"[^0-9A-Za-z]+", "-", name) for name in names or ["all"]}):
            # Several machines may share the store, and each has its own.
            name = short_name(f"gpu-{socket.gethostname()}-{gpu}", LONGEST_NAME)

            def say(message: str) -> None:
                observe({"type": "log", "message": f"for the GPU: {message}"})

            held.enter_context(lease(folder / f"{name}.lease", say))
        yield


@contextmanager
def _with_its_log_named(session: Session, node: Node) -> Iterator[None]:
    """A process that crashed leaves more in its log than its last lines; a user's mistake is told whole."""
    try:
        yield
    except LaunchError as error:
        if error.user:
            raise
        command = [
            "tunemill",
            "logs",
            f"{session.pipeline.name}/{node.name}",
            "--state",
            str(session.store.root),
        ]
        raise LaunchError(f"{error}\nthe whole log: {shlex.join(command)}", crashed=error.crashed) from error


@contextmanager
def _with_origins(
    session: Session, node: Node, inputs: Mapping[str, Published], suspects: Mapping[str, Sequence[int]]
) -> Iterator[None]:
    """A user's mistake that is about rows of inputs also names the lines of the files that they come from."""
    try:
        yield
    except LaunchError as error:
        if not error.user or not suspects:
            raise
        message = str(error)
        for name, rows in suspects.items():
            (upstream,) = node.inputs[name]
            message = with_origins(message, rows, session.pipeline, upstream, inputs[upstream], session.store)
        raise LaunchError(message, user=True) from error


def check_unchanged(
    session: Session, node: Node, resolved: Resolved, inputs: Mapping[str, Published]
) -> None:
    """Raises StoreError if what the key was made of is no longer what the stage has read."""
    document, store = session.pipeline.document, session.store
    now = identify_sources(node, document, store.stat_cache)
    if comparable(now) != comparable(resolved.sources):
        raise StoreError(f"{node.name}: a source changed while it was read; nothing was published. Run again")
    for name, given in inputs.items():
        found = store.lookup(given.stage, given.key)
        if not isinstance(found, Published) or found.digest != given.digest:
            raise StoreError(
                f"{node.name}: {name} was replaced while it was read; nothing was published. Run again"
            )
