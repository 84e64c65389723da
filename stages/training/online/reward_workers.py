"""Processes that run reward functions: several calls at once, each within a time, answers in the order of the calls."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait

from tunemill.stages.errors import SettingError
from tunemill.stages.training.online.reward_calls import KEY, Call, Loaded, Reply

PROCESS = "tunemill.stages.training.online.reward_process"
STARTING_SECONDS, ENDING_SECONDS = 120.0, 5.0


@dataclass
class Worker:
    """A process, and until when it must have answered."""

    process: subprocess.Popen[bytes]
    connection: Connection
    until: float = 0.0
    call: int | None = None


@dataclass
class Workers:
    """Some processes that have loaded the functions. `seconds`: how long a call may take."""

    functions: Loaded
    count: int
    seconds: float
    alive: list[Worker] = field(default_factory=list)

    def run(self, calls: Sequence[Call]) -> list[Reply]:
        """The answers, in the order of the calls; a call that takes too long, or ends its process, is a failure."""
        waiting, found = list(range(len(calls))), dict[int, Reply]()
        while len(found) < len(calls):
            for worker in self._idle(len(waiting)):
                worker.call = waiting.pop(0)
                worker.until = time.monotonic() + self.seconds
                # One that has ended since it was looked at is told of where its answer is read.
                with suppress(OSError):
                    worker.connection.send(calls[worker.call])
            busy = [worker for worker in self.alive if worker.call is not None]
            left = max(0.0, min(worker.until for worker in busy) - time.monotonic())
            ready = set(wait([worker.connection for worker in busy], left))
            for worker in busy:
                late = worker.connection not in ready and time.monotonic() >= worker.until
                if worker.connection in ready or late:
                    assert worker.call is not None
                    name = self.functions.names[calls[worker.call].function]
                    found[worker.call] = self._late(worker, name) if late else self._told(worker, name)
                    worker.call = None
        return [found[number] for number in range(len(calls))]

    def _idle(self, wanted: int) -> Iterator[Worker]:
        """Workers that may be asked, no more than there are calls; more are started where there are too few."""
        for worker in [one for one in self.alive if one.call is None and one.process.poll() is not None]:
            self._end(worker)
        busy = sum(worker.call is not None for worker in self.alive)
        while len(self.alive) < min(self.count, busy + wanted):
            self.alive.append(_start(self.functions))
        free = [worker for worker in self.alive if worker.call is None]
        yield from free[:wanted]

    def _told(self, worker: Worker, name: str) -> Reply:
        try:
            reply: Reply = worker.connection.recv()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(ENDING_SECONDS)
            self._end(worker)
            return Reply(failure=f"{KEY}: {name} ended its process ({_how(worker.process.returncode)})")
        return reply

    def _late(self, worker: Worker, name: str) -> Reply:
        self._end(worker)
        return Reply(
            failure=f"{KEY}: {name} took more than {self.seconds:g} s (pipeline.reward_timeout) and was ended",
            ended=True,
        )

    def _end(self, worker: Worker) -> None:
        self.alive.remove(worker)
        _end(worker)

    def close(self) -> None:
        """End all of them."""
        for worker in self.alive:
            _end(worker)
        self.alive.clear()


@contextmanager
def workers(names: Sequence[str], files: Sequence[str], count: int, seconds: float) -> Iterator[Workers]:
    """Processes for these functions, which are started when they are needed and end with the block."""
    found = Workers(Loaded(list(names), list(files)), count, seconds)
    try:
        yield found
    finally:
        found.close()


def _start(functions: Loaded) -> Worker:
    """Raises SettingError where the functions do not load."""
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-P", "-m", PROCESS, str(theirs.fileno())]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
        )
    worker = Worker(process, ours)
    try:
        ours.send(functions)
        told = ours.recv() if ours.poll(STARTING_SECONDS) else Reply(failure=_slow(functions))
    except (EOFError, OSError):
        process.wait()
        told = Reply(failure=f"{KEY}: loading {', '.join(functions.names)} ended the process")
    if told.failure is not None:
        _end(worker)
        raise SettingError(told.failure)
    return worker


def _slow(functions: Loaded) -> str:
    return f"{KEY}: {', '.join(functions.names)} did not load within {STARTING_SECONDS:g} s"


def _end(worker: Worker) -> None:
    worker.connection.close()
    with suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.process.wait()


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit {code}"
