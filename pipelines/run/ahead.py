"""Nodes of data start before their turn: as soon as their inputs are there, and before Dagster is even imported.

A run asks for its nodes one by one; many of data wait for nothing but their turn, and use one core for much of their
time. So threads compute them, two at once, each in its process as ever. The run takes what became of them.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.run.materialize import Hear, Result, Session, materialize
from tunemill.resources.launcher import in_child

AT_ONCE = 2
# A process is stopped within seconds, and what is left of its attempt is cleared away.
STOP_SECONDS = 15.0
# The run of which the session keeps what these threads made.
RUN = "ahead"


@contextmanager
def started_ahead(session: Session, names: Collection[str]) -> Iterator[Session]:
    """The session of a run over these nodes, whose nodes of data are being computed; none of them any more afterwards.

    Only bodies in processes of their own can run beside others: with another launcher nothing is ahead.
    """
    if session.launch is not in_child:
        yield session
        return
    ahead = Ahead(session, names)
    try:
        yield replace(session, ahead=ahead.outcome)
    finally:
        ahead.stop()


class Ahead:
    """The threads, and what became of their nodes."""

    def __init__(self, session: Session, names: Collection[str]) -> None:
        self._stopped = threading.Event()
        self._session = replace(session, launch=partial(in_child, stop=self._stopped))
        nodes = [node for node in session.pipeline.nodes if node.name in names]
        # In the order of the graph: of nodes that are ready the first one is computed first.
        self._waiting = {
            node.name: node for node in nodes if node.stage.prepares_data and node.stage.device == "cpu"
        }
        self._needed = {name: {*upstream_of(node)} & {*names} for name, node in self._waiting.items()}
        self._events: dict[str, list[dict[str, Any]]] = {name: [] for name in self._waiting}
        self._made: dict[str, Future[Result]] = {name: Future() for name in self._waiting}
        self._computing = 0
        self._lock = threading.RLock()
        self._start_ready()

    def outcome(self, name: str, hear: Hear) -> Result | None:
        """Wait for a node whose turn it is, and tell its events; None where it is no node of these threads.

        Raises what computing it has raised.
        """
        if name not in self._needed:
            return None
        with self._lock:
            # Now that it is its turn, whatever it needs is there.
            self._needed[name].clear()
            self._start_ready()
        try:
            return self._made[name].result()
        finally:
            for event in self._events[name]:
                hear(event)

    def stop(self) -> None:
        """End what still runs, and publish nothing of it. A thread that has no process yet is left behind."""
        with self._lock:
            self._stopped.set()
        begun = (name for name, events in self._events.items() if any(e["type"] == "start" for e in events))
        wait([self._made[name] for name in begun], STOP_SECONDS)

    def _start_ready(self) -> None:
        """Start the nodes whose inputs are there."""
        with self._lock:
            for name, node in list(self._waiting.items()):
                if self._computing == AT_ONCE or self._stopped.is_set():
                    return
                if not self._needed[name]:
                    del self._waiting[name]
                    self._computing += 1
                    # Python waits at its end for all other threads, such as those of an executor: for as long as
                    # another run computes the same, or files are hashed.
                    threading.Thread(target=self._compute, args=(node,), daemon=True).start()

    def _compute(self, node: Node) -> None:
        made = self._made[node.name]
        with ExitStack() as at_end:
            at_end.push(partial(pass_on, made))
            result = materialize(self._session, node, RUN, self._hear(node.name))
            with self._lock:
                self._session.results[RUN, node.name] = result
                for needed in self._needed.values():
                    needed.discard(node.name)
            made.set_result(result)
        with self._lock:
            self._computing -= 1
            self._start_ready()

    def _hear(self, name: str) -> Callable[[dict[str, Any]], None]:
        def hear(event: dict[str, Any]) -> None:
            if self._stopped.is_set():
                raise KeyboardInterrupt
            self._events[name].append(event)
            self._session.observe(name, event)

        return hear


def pass_on(made: Future[Any], _kind: Any, error: BaseException | None, _place: Any) -> bool:
    """Whatever a thread raises is raised where its node is asked for."""
    if error is not None:
        made.set_exception(error)
    return True
