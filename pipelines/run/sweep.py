"""The points of a sweep, several at once, each node once; and which of them go on at a rung. Knows no Dagster."""

import math
import os
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.sweep_keys import SweepSettings
from tunemill.pipelines.graph.keys import upstream_of, with_upstream
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import Planned, resolve
from tunemill.pipelines.graph.provenance import described
from tunemill.pipelines.graph.sweep_plan import PlannedPoint
from tunemill.pipelines.graph.sweep_settings import training_of
from tunemill.pipelines.run.ahead import STOP_SECONDS, pass_on
from tunemill.pipelines.run.curves import Curve, curve_of, read_curve, write_curve
from tunemill.pipelines.run.materialize import Result, Session, find_inputs, materialize
from tunemill.pipelines.run.tracking import tracking
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.store import Published, Store
from tunemill.stages.errors import UserError

EXPECTED = (ConfigError, LaunchError, StoreError, UserError, OSError)
# The run of which the sessions keep what these threads made.
RUN = "sweep"

State = Literal["finished", "running", "waiting", "stopped", "failed", "left out", "not finished"]
# Told of a point, a node and an event of it.
Watch = Callable[[str, str, dict[str, Any]], None]


class _AtRung(KeyboardInterrupt):
    """A training has its checkpoint of a rung: its process is ended, as by Ctrl-C, and goes on from there later."""


@dataclass
class PointRun:
    """A point in a sweep that runs: what became of its nodes so far.

    `state` is finished only where all its nodes are there; `why` says what stopped it. `key` is that of its training,
    None before its inputs are known.
    """

    planned: PlannedPoint
    session: Session
    state: State = "waiting"
    why: str = ""
    key: str | None = None
    curve: Curve = field(default_factory=Curve)
    failures: dict[str, BaseException] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def pipeline(self) -> Pipeline:
        return self.planned.pipeline

    @property
    def name(self) -> str:
        """What the point is called."""
        assert self.pipeline.point is not None, "of a sweep"
        return self.pipeline.point.name

    @property
    def nodes(self) -> list[Node]:
        """Those that are brought up to date."""
        return [item.node for item in self.planned.plan if not item.left_alone]

    def failure(self, node: str) -> str:
        """What is said of a node that failed: no secret."""
        config = self.pipeline.node(node).config.model_dump(mode="json")
        return redacted(str(self.failures[node]), secrets_in(config, os.environ))

    @property
    def results(self) -> dict[str, Result]:
        """What became of nodes that have an artifact now."""
        return {name: result for (run, name), result in self.session.results.items() if run == RUN}


class SweepRun:
    """The threads that compute points, `parallel` at once; each on one of `gpus`, where they are named."""

    def __init__(
        self,
        points: Sequence[PlannedPoint],
        settings: SweepSettings,
        store: Store,
        watch: Watch,
        parallel: int = 1,
        launch: Launcher = in_child,
        gpus: Sequence[str] = (),
    ) -> None:
        self._settings, self._store, self._watch, self._parallel = settings, store, watch, parallel
        self._stopped = threading.Event()
        self._turn = threading.Lock()
        # What points share is computed by the first of them, and one training or evaluation has a device at a time.
        self._shared: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for gpu in gpus or (None,):
            self._devices.put(gpu)
        self._deadline = math.inf
        if settings.max_seconds is not None:
            self._deadline = time.monotonic() + settings.max_seconds
        if launch is in_child:
            launch = partial(in_child, stop=self._stopped)
        self.points = [self._point(planned, launch) for planned in points]

    def run(self) -> Iterator[PointRun]:
        """Compute all points; each as soon as nothing more becomes of it. Those that are left out come first.

        An exception in a thread that is no mistake of a user's ends all of them, and is raised here.
        """
        try:
            yield from (point for point in self.points if point.state == "left out")
            for rung in self._settings.rungs:
                list(self._phase(self._alive(), rung))
                self._halve(rung)
            yield from (point for point in self.points if point.state in ("stopped", "failed"))
            yield from self._phase(self._alive(), None)
        finally:
            self._stopped.set()

    def _alive(self) -> list[PointRun]:
        return [point for point in self.points if point.state in ("waiting", "running", "not finished")]

    def _point(self, planned: PlannedPoint, launch: Launcher) -> PointRun:
        asked_for = {item.node.name for item in planned.plan if not item.left_alone}
        session = Session(planned.pipeline, self._store, launch, asked_for=asked_for)
        point = PointRun(planned, session)
        point.session = replace(session, observe=partial(self._hear, point))
        if planned.left_out is not None:
            point.state, point.why = "left out", planned.left_out
        return point

    def _phase(self, points: Sequence[PointRun], rung: int | None) -> Iterator[PointRun]:
        """Bring points to a rung, or to their end."""
        jobs: queue.SimpleQueue[PointRun] = queue.SimpleQueue()
        done: queue.SimpleQueue[Future[PointRun]] = queue.SimpleQueue()
        for point in points:
            jobs.put(point)

        def work() -> None:
            while not self._stopped.is_set():
                try:
                    point = jobs.get_nowait()
                except queue.Empty:
                    return
                made: Future[PointRun] = Future()
                with ExitStack() as at_end:
                    at_end.callback(done.put, made)
                    # Whatever a thread raises is raised where its point is waited for.
                    at_end.push(partial(pass_on, made))
                    self._advance(point, rung)
                    made.set_result(point)

        threads = [
            threading.Thread(target=work, daemon=True) for _ in range(min(self._parallel, len(points)))
        ]
        for thread in threads:
            thread.start()
        is_over = False
        try:
            for _ in points:
                yield done.get().result()
            is_over = True
        finally:
            if not is_over:
                self._stopped.set()
                # A process is stopped within seconds, and what is left of its attempt is cleared away.
                for thread in threads:
                    thread.join(STOP_SECONDS)

    def _advance(self, point: PointRun, rung: int | None) -> None:
        """Bring a point's nodes up to date, in their order: to a rung of its training, or all."""
        started = time.monotonic()
        point.state = "running"
        training = training_of(point.pipeline)
        wanted = {node.name for node in point.nodes}
        if rung is not None and training is not None:
            wanted &= with_upstream(point.pipeline, [training.name])
        for item in point.planned.plan:
            node = item.node
            if node.name not in wanted or node.name in point.results or node.name in point.failures:
                continue
            # A pinned node is there already, and needs nothing.
            needed = set() if item.pin is not None else wanted.intersection(upstream_of(node))
            if not point.results.keys() >= needed:
                # What it is made from has failed, and says so itself.
                continue
            if self._stopped.is_set():
                raise KeyboardInterrupt
            if point.planned.to_run and time.monotonic() > self._deadline:
                point.state, point.why = (
                    "not finished",
                    f"max_seconds: {self._settings.max_seconds:g} are over",
                )
                break
            with self._turn:
                shared = self._shared[point.planned.identities[node.name]]
            with shared, self._device(point, node):
                self._compute(point, item, rung if node is training else None)
        point.seconds += time.monotonic() - started
        if point.failures:
            first = next(iter(point.failures))
            point.state, point.why = "failed", f"{first}: {point.failure(first).splitlines()[0]}"
        elif point.state == "running":
            # Where all is there at a rung already, the others are still compared with it.
            point.state = "finished" if rung is None else "waiting"

    @contextmanager
    def _device(self, point: PointRun, node: Node) -> Iterator[None]:
        """Hold a device while a node needs one, and let the point's processes see that one alone."""
        if node.stage.device == "cpu":
            yield
            return
        gpu, session = self._devices.get(), point.session
        try:
            if gpu is not None:
                launch = session.launch
                # Others than `in_child` start no process that could see anything.
                launch = partial(launch, gpu=gpu) if isinstance(launch, partial) else launch
                point.session = replace(session, gpu=gpu, launch=launch)
            yield
        finally:
            point.session = session
            self._devices.put(gpu)

    def _compute(self, point: PointRun, item: Planned, rung: int | None) -> None:
        """One node; a training that is to stop at a rung only as far as that."""
        node = item.node
        try:
            if node is training_of(point.pipeline):
                known = item.cached if item.pin is not None else self._looked_up(point, node)
                if known is None:
                    point.curve = read_curve(self._store.root, str(point.key))
                else:
                    point.key, point.curve = known.key, curve_of(known.manifest)
                if rung is not None and known is None and rung in point.curve.held_out:
                    return
                self._hear(point, node.name, {"type": "curve", "curve": point.curve})
            point.session.results[RUN, node.name] = self._materialize(point, node, rung)
        except _AtRung:
            return
        except EXPECTED as error:
            point.failures[node.name] = error
            with self._turn:
                self._watch(point.name, node.name, {"type": "failure", "message": point.failure(node.name)})

    def _looked_up(self, point: PointRun, node: Node) -> Published | None:
        """The training if it is there already; its key goes to the point."""
        inputs = find_inputs(point.session, node, RUN)
        resolved = resolve(
            described(point.pipeline, node, inputs), point.pipeline.document, self._store, inputs
        )
        point.key = resolved.key
        return resolved.found if isinstance(resolved.found, Published) else None

    def _materialize(self, point: PointRun, node: Node, rung: int | None) -> Result:
        root, trackers = self._store.root, point.pipeline.trackers
        is_training = node is training_of(point.pipeline)
        told: list[int] = []

        def say(message: str) -> None:
            self._hear(point, node.name, {"type": "log", "message": message})

        def hear(event: dict[str, Any]) -> None:
            self._hear(point, node.name, event)
            if not is_training or point.key is None:
                return
            if (step := point.curve.hear(event)) is not None:
                told.append(step)
                # Before its checkpoint is written: whoever goes on from that knows the figure.
                write_curve(root, point.key, point.curve)
            if event["type"] == "checkpoint" and rung is not None and any(step >= rung for step in told):
                raise _AtRung

        if trackers is None or not (node.stage.tracked and trackers.asked):
            return materialize(point.session, node, RUN, hear)
        with tracking(point.pipeline, trackers, node, root, say) as tracked:

            def hear_too(event: dict[str, Any]) -> None:
                tracked.hear(event)
                hear(event)

            result = materialize(point.session, node, RUN, hear_too)
            tracked.end(result.published)
            return result

    def _hear(self, point: PointRun, node: str, event: dict[str, Any]) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        with self._turn:
            self._watch(point.name, node, event)

    def _halve(self, rung: int) -> None:
        """Stop the points whose held-out loss at a rung is not among the lowest.

        One whose loss at that step nobody has told goes on: it went past it in another run. So does one that is trained
        already, which costs nothing.
        """
        alive = self._alive()
        for point in alive:
            training = training_of(point.pipeline)
            is_trained = training is not None and training.name in point.results
            why = lost_at(point, alive, rung, self._settings.keep)
            if why is not None and point.state == "waiting" and not is_trained:
                point.state, point.why = "stopped", why
                self._hear(point, "", {"type": "stopped", "message": why})


def lost_at(point: PointRun, alive: Sequence[PointRun], rung: int, keep: float) -> str | None:
    """Why a point does not go on past a rung; None where it does."""
    told = [one for one in alive if rung in one.curve.held_out]
    ranked = sorted(told, key=lambda one: _order(one.curve.held_out[rung]))
    going_on = max(1, math.ceil(len(ranked) * keep))
    if point not in ranked[going_on:]:
        return None
    place = ranked.index(point) + 1
    loss = point.curve.held_out[rung]
    return (
        f"at step {rung} its held-out loss {loss:.4g} was the {place}. of {len(ranked)}; {going_on} went on"
    )


def _order(loss: float) -> float:
    """What is no number is the worst."""
    return loss if math.isfinite(loss) else math.inf
