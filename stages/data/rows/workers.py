"""The same work in several processes, with its results in order."""

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from tunemill.stages.errors import SettingError

# Items that each process has at hand, so that it does not wait for the next one.
AHEAD = 2
# More processes than these are hardly faster than the one that writes what they make.
MOST_WORKERS = 8
# Fewer batches are done before another process has started.
BATCHES_FOR_ONE = 16
PATIENCE_SECONDS = 10

Item = TypeVar("Item")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Line:
    """A process, and the connection to it."""

    process: subprocess.Popen[bytes]
    connection: "Connection[Any, Any]"


def workers_for(batches: int, wanted: int | None) -> int:
    """How many processes so many batches are worth, at most `wanted`, or one for each core that may be used."""
    most = min(cores(), MOST_WORKERS) if wanted is None else wanted
    return min(max(batches // BATCHES_FOR_ONE, 1), most)


def cores() -> int:
    """How many cores this process may use."""
    # Linux alone has it: a container may have fewer than the machine.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def in_workers(
    items: Iterable[Item],
    make: Callable[..., Callable[[Item], Made]],
    arguments: tuple[Any, ...],
    lines: list[Line],
) -> Iterator[Made]:
    """What `make(*arguments)`, made once in each process, returns for the items, in their order.

    Raises what the work raises, and SettingError where a process is killed.
    """
    for line in lines:
        send(line, (make, arguments))
    pending: deque[Line] = deque()
    for number, item in enumerate(items):
        if len(pending) == AHEAD * len(lines):
            yield received(pending.popleft())
        line = lines[number % len(lines)]
        send(line, item)
        pending.append(line)
    while pending:
        yield received(pending.popleft())


@contextmanager
def started(module: str, workers: int, shared: Sequence[int] = ()) -> Iterator[list[Line]]:
    """So many processes, and the lines to them. They end with their line, whatever ends this process.

    `shared` are open files of this process that they have too, under the same numbers.

    They are Python anew, not forks, which would share the locks of this process's threads; `module`, where their work
    is made, they import while there is nothing to do yet.
    """
    lines: list[Line] = []
    try:
        lines.extend(_start(module, shared) for _ in range(workers))
        yield lines
    finally:
        for line in lines:
            line.connection.close()
        for line in lines:
            try:
                line.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                line.process.kill()
                line.process.wait()


def _start(module: str, shared: Sequence[int]) -> Line:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), module]
        process = subprocess.Popen(command, pass_fds=[theirs.fileno(), *shared], stdin=subprocess.DEVNULL)
        return Line(process, Connection(ours.detach()))


def send(line: Line, item: Any) -> None:
    """Hand over an item. That a process is gone is seen where its result is missing."""
    with suppress(BrokenPipeError, ConnectionResetError):
        line.connection.send(item)


def received(line: Line) -> Any:
    """The next result. Raises the error that was sent in its place."""
    try:
        made, error = line.connection.recv()
    except (EOFError, ConnectionResetError):
        # A fault of ours has been written by the process itself.
        assert line.process.wait() < 0, "a process that prepares rows failed"
        raise SettingError(
            "a process that prepares rows was killed, most likely for want of memory; free some of it, or set "
            "dataset_num_proc: 1"
        ) from None
    if error is not None:
        raise error
    return made


def serve(line: "Connection[Any, Any]") -> None:
    """What each process does: the work on what it is sent, until there is nothing more to come."""
    # There are as many processes as cores: threads of their own would be in each other's way.
    os.environ["RAYON_NUM_THREADS"] = "1"
    work: Callable[[Any], Any] | None = None
    try:
        make, arguments = line.recv()
    except (EOFError, ConnectionResetError):
        return
    while True:
        try:
            item = line.recv()
        except (EOFError, ConnectionResetError):
            return
        made, failed = None, None
        try:
            work = work or make(*arguments)
            made = work(item)
        except (ValueError, OSError) as error:
            # It belongs to the process that asked.
            failed = error
        try:
            line.send((made, failed))
        except (BrokenPipeError, ConnectionResetError):
            return


if __name__ == "__main__":
    # Of an interrupt the process that asked tells.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    import_module(sys.argv[2])
    serve(Connection(int(sys.argv[1])))
