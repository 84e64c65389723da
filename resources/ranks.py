"""A call in several processes of this machine: ranks, which torch's own agent (that of torchrun) starts and ends.

This process, the stage's, starts them and listens. Rank 0 speaks for all: its events go on to whoever launched the
stage, and what it prints stands in output.log. What another rank prints or logs stands in `rank_N.log`, and its data
and logs go to a folder that is dropped: the first alone writes the artifact. All share the folder of checkpoints. The
call travels to the ranks by pickle through a pipe, so what is secret in it lies in no file.

Where one rank fails, the others soon fail too, of what they no longer hear. `verdict` says what came first.
"""

import multiprocessing
import os
import selectors
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tunemill.resources.building import OUTPUT_FILE
from tunemill.resources.calls import Call, Sink, execute, named
from tunemill.resources.imports import import_to_stay
from tunemill.resources.lines import Lines
from tunemill.resources.machine_failures import disk_full, is_full
from tunemill.resources.machines import NotMetError, fault_of_others, meeting, not_met, of_machine
from tunemill.resources.rank_failures import STOPPED, WAITED, Standing, verdict
from tunemill.resources.rank_hangs import HangWatch
from tunemill.resources.rank_stacks import answer, ask, idle, told
from tunemill.resources.redaction import redacted, secrets_in

POLL_SECONDS = 0.5
# So long the other ranks may take to end by themselves when one has failed.
PATIENCE_SECONDS = 5.0
# A process that was stopped (SIGSTOP) for so long while others go on is not waited for.
STOPPED_SECONDS = 6.0
# When no rank has moved on for so long, it is told where each is. A long evaluation is as silent, so that ends nothing.
SILENT_SECONDS = 25.0
# They tell of a failed rank by tracebacks of their own, and of each process that they end.
NOISY = ("torch.distributed.elastic", "torch.multiprocessing")


def rank_log(logs: Path, rank: int) -> Path:
    """Where what a rank prints is kept: that of the first where that of a stage in one process is."""
    return logs / (f"rank_{rank}.log" if rank else OUTPUT_FILE)


def stack_file(spare: Path, rank: int) -> Path:
    """Where a rank writes what it does when it is asked."""
    return spare / f"rank_{rank}.stack"


def in_ranks(call: Call, sink: Sink, request: Path) -> int:
    """Run the body in each of the call's processes here; 0, or 1 when `sink` has been told why it failed."""
    # Only here: whoever runs in one process waits for none of it.
    import logging

    from torch.distributed import DistNetworkError, DistStoreError
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    count = call.here
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // count)))
    with ExitStack() as stack:
        spare = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunemill_ranks_")))
        ends = [multiprocessing.Pipe(duplex=False) for _ in range(2 * count)]
        for one in ends:
            for end in one:
                stack.callback(end.close)
        readers, writers = [one[0] for one in ends], [one[1] for one in ends]
        listener = Listener(call, sink, readers, writers, request.parent, spare)
        stack.enter_context(listener)
        try:
            met = meeting(call, sink)
        except NotMetError as error:
            assert call.nodes is not None, "one machine meets itself"
            sink({"type": "failed", "message": not_met(call.nodes, error)})
            return 1
        config = LaunchConfig(
            **met,
            nproc_per_node=count,
            max_restarts=0,
            shutdown_timeout=int(PATIENCE_SECONDS),
            logs_specs=DefaultLogsSpecs(log_dir=str(spare / "agent")),
        )
        exits: dict[int, int] = {}
        try:
            elastic_launch(config, as_rank)(call, str(spare), str(request), writers)
        except ChildFailedError as error:
            exits = {failure.local_rank: failure.exitcode for failure in error.failures.values()}
        except (DistNetworkError, DistStoreError) as error:
            if call.nodes is None:
                raise
            sink({"type": "failed", "message": not_met(call.nodes, error)})
            return 1
        else:
            return 0
    found = verdict(listener.standings, exits, partial(rank_log, request.parent))
    sink(found if call.nodes is None else of_machine(found, call.nodes))
    return 1


@dataclass(frozen=True)
class Begun:
    """What a rank says first."""

    pid: int


@dataclass(frozen=True)
class Failed:
    """What a rank says last, where it fails. `of_user`: the message is all that is to be said."""

    message: str
    of_user: bool


@dataclass(frozen=True)
class Done:
    """What a rank says last, where it has done its part."""


def as_rank(call: Call, spare: str, request: str, writers: Sequence[Connection]) -> None:
    """One rank's side, in a process of its own: run the call, and tell of it."""
    rank, count = int(os.environ["LOCAL_RANK"]), call.here
    events, output = writers[rank], writers[count + rank]
    for other in writers:
        # A pipe ends with its rank only when nobody else could write into it.
        if other not in (events, output):
            other.close()
    threading.Thread(target=_die_with_agent, daemon=True).start()
    if rank:
        for number in (1, 2):
            os.dup2(output.fileno(), number)
        folders = {name: f"{spare}/rank_{rank}/{name}" for name in ("data", "logs")}
        for folder in folders.values():
            Path(folder).mkdir(parents=True)
        call = replace(call, workspace={**call.workspace, **folders})
    answer(stack_file(Path(spare), rank))
    events.send(Begun(os.getpid()))
    if call.nodes is not None and (fault := fault_of_others(call.nodes)):
        events.send(Failed(fault, of_user=True))
        sys.exit(1)
    if not speak(call, events.send, request):
        sys.exit(1)


def speak(call: Call, send: Callable[[Any], None], request: str, *, parts: bool = True) -> bool:
    """Run the call, and tell of it: its events, and at the end Done or Failed. False where a user's mistake ended it.

    `parts`: end the group of processes too. Raises what else the body raises, when that has been told.
    """
    user_error = named(call.user_error)
    try:
        import_to_stay(call.body.partition(":")[0])
        execute(call, send)
        if parts:
            _part()
    except user_error as error:
        send(Failed(str(error), of_user=True))
        return False
    except OSError as error:
        if not is_full(error):
            raise
        send(Failed(disk_full(Path(request)), of_user=True))
        return False
    finally:
        error_now = sys.exc_info()[1]
        if error_now is not None:
            text = "".join(traceback.format_exception(error_now))
            print(text, file=sys.stderr, flush=True)
            send(Failed(text, of_user=False))
    send(Done())
    return True


def _part() -> None:
    """End the group of processes, where the body has made one: NCCL complains of one that is not."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _die_with_agent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a rank is started by the agent"
    wait([parent.sentinel])
    os.killpg(os.getpgrp(), signal.SIGKILL)


def hear(rank: int, standing: Standing, said: Any, sink: Sink, write: Callable[[str], None]) -> None:
    """Take what a rank says: note how it stands, and pass on what concerns all; `write` gets what is its own to log."""
    match said:
        case Failed(message=message, of_user=of_user):
            standing.fail(message, of_user, standing.heard_at)
        case Done():
            standing.done = True
        case {"type": kind}:
            if kind == "progress":
                standing.last = f"at {said['done']} of {said['total']} {said['unit']}"
            # What rows are suspected is said before a failure, which any rank may tell of first.
            if rank == 0 or kind == "suspects":
                sink(said)
            elif kind == "log":
                write(f"{said['message']}\n")


class Listener:
    """Hears the ranks in a thread of its own, passes on what the first says, and ends those that do not end.

    `readers` and `writers` are the ends of two pipes for each rank: first all for events, then all for what is printed.
    """

    def __init__(
        self,
        call: Call,
        sink: Sink,
        readers: Sequence[Connection],
        writers: Sequence[Connection],
        logs: Path,
        spare: Path,
    ) -> None:
        count = call.here
        self.standings = [Standing() for _ in range(count)]
        self._sink = sink
        self._writers = writers
        self._secrets = secrets_in(call.config, os.environ)
        self._logs = logs
        self._spare = spare
        self._told_at = 0.0
        self._hangs = HangWatch(self.standings, call.hangs_after, self._ask)
        self._events = {reader: rank for rank, reader in enumerate(readers[:count])}
        self._outputs = {
            reader: Lines(self._writer(rank), keep_ends=True)
            for rank, reader in enumerate(readers[count:])
            if rank
        }
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._over = threading.Event()

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for writer in self._writers:
            writer.close()
        self._thread.join()

    def _writer(self, rank: int) -> Callable[[str], None]:
        def write(text: str) -> None:
            with rank_log(self._logs, rank).open("a", encoding="utf-8") as file:
                file.write(redacted(text, self._secrets))

        return write

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for reader in (*self._events, *self._outputs):
                selector.register(reader, selectors.EVENT_READ, reader)
            while True:
                ready = selector.select(POLL_SECONDS)
                for key, _ in ready:
                    if not self._take(key.data):
                        selector.unregister(key.fileobj)
                if self._over.is_set() and not ready:
                    return
                self._look()

    def _take(self, reader: Connection) -> bool:
        """Take what has come; False where nothing will come any more."""
        if reader in self._outputs:
            chunk = os.read(reader.fileno(), 1 << 16)
            self._outputs[reader].add(chunk)
            if not chunk:
                self._outputs[reader].finish()
            return bool(chunk)
        rank = self._events[reader]
        standing = self.standings[rank]
        try:
            said = reader.recv()
        except EOFError:
            standing.end(time.monotonic())
            if standing.exit == -signal.SIGABRT:
                # NCCL's watchdog ends a process that has waited too long.
                self._ask()
            return False
        standing.heard_at = time.monotonic()
        match said:
            case Begun(pid=pid):
                standing.pid = pid
                if all(one.pid for one in self.standings):
                    # From now on a pipe ends with its rank.
                    for writer in self._writers:
                        writer.close()
            case _:
                hear(rank, standing, said, self._sink, self._writer(rank))
                if isinstance(said, Failed) and WAITED.search(said.message):
                    # Before torch's agent ends the others.
                    self._ask()
        return True

    def _ask(self) -> None:
        """Ask the ranks that run where they are."""
        asked = {
            rank: (one.pid, stack_file(self._spare, rank))
            for rank, one in enumerate(self.standings)
            if one.pid and not one.is_over and one.failed_at is None and one.stopped_since is None
        }
        for rank, (*others, frames) in ask(asked).items():
            self.standings[rank].frames = frames
            self.standings[rank].threads_idle = all(map(idle, filter(None, others)))
        self._hangs.pardon()

    def _tell_silent(self, now: float) -> None:
        """Say once where each rank is, when all of them have trained and none has moved on for long."""
        heard_at = max(one.heard_at for one in self.standings)
        running = all(one.last and not one.is_over and one.failed_at is None for one in self.standings)
        if running and now - heard_at > SILENT_SECONDS and self._told_at < heard_at:
            self._told_at = now
            self._ask()
            places = {rank: one.frames for rank, one in enumerate(self.standings) if one.frames}
            self._sink({"type": "log", "message": told(places, now - heard_at)})

    def _look(self) -> None:
        """End what stands still, and what has not ended by itself soon after another rank failed."""
        now = time.monotonic()
        self._tell_silent(now)
        self._hangs.look(now)
        alive = [one for one in self.standings if one.pid and not one.is_over]
        for one in alive:
            one.look(now)
        stopped = [one for one in alive if one.stopped_since is not None]
        if len(stopped) < len(alive):
            for one in stopped:
                if one.stopped_for(now) > STOPPED_SECONDS:
                    one.fail(STOPPED, False, now)
                    one.kill()
        failures = [one.failed_at for one in self.standings if one.failed_at is not None]
        if failures and now - min(failures) > PATIENCE_SECONDS:
            for one in alive:
                one.kill()
