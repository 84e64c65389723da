"""Environments in processes of their own, one for each completion: asked side by side, each within a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

from tunemill.stages.errors import SettingError
from tunemill.stages.training.online.environment_calls import Called, Describe, Described, Told

PROCESS = "tunemill.stages.training.online.environment_process"
STARTING_SECONDS, ENDING_SECONDS = 120.0, 5.0


@dataclass(frozen=True)
class Place:
    """Where one completion is: a child process, and the connection to it."""

    number: int
    connection: Connection


@dataclass
class Environments:
    """The process that children come from. `seconds`: how long an answer may take."""

    called: Called
    control: Connection
    process: subprocess.Popen[bytes]
    seconds: float
    places: dict[int, Place] = field(default_factory=dict)

    def describe(self) -> Described:
        """What can be called. Raises SettingError where an environment cannot be made, or does not describe itself."""
        told = self.ask({-1: Describe()}, max(self.seconds, STARTING_SECONDS))[-1]
        self.end(-1)
        if told.failure is not None:
            raise SettingError(told.failure)
        found: Described = told.value
        return found

    def ask(self, asked: Mapping[int, Any], seconds: float | None = None) -> dict[int, Told]:
        """What the environments of some completions answer, side by side. `seconds`: other than its own.

        One that takes too long, or ends its process, is a failure, and there is none any more.
        """
        until = time.monotonic() + (seconds or self.seconds)
        waiting = {number: self.places.get(number) or self._start(number) for number in asked}
        for number, place in waiting.items():
            # One that has ended since is told of where its answer is read.
            with suppress(OSError):
                place.connection.send(asked[number])
        found = dict[int, Told]()
        while waiting:
            left = max(0.0, until - time.monotonic())
            ready = set(wait([place.connection for place in waiting.values()], left))
            is_late = not ready
            for number, place in list(waiting.items()):
                if place.connection in ready or is_late:
                    found[number] = self._late(number) if is_late else self._read(number, place)
                    del waiting[number]
        return found

    def end(self, number: int) -> None:
        """The environment of a completion is not needed any more."""
        place = self.places.pop(number, None)
        if place is not None:
            place.connection.close()
            self.control.send(place.number)

    def end_all(self) -> None:
        """No environment is needed any more."""
        for number in list(self.places):
            self.end(number)

    def close(self) -> None:
        """End the process, and with it all of them."""
        for place in self.places.values():
            place.connection.close()
        self.places.clear()
        self.control.close()
        try:
            self.process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _start(self, number: int) -> Place:
        ours, theirs = Pipe()
        with theirs:
            self.control.send(None)
            send_handle(self.control, theirs.fileno(), self.process.pid)
            place = Place(self.control.recv(), ours)
        self.places[number] = place
        return place

    def _read(self, number: int, place: Place) -> Told:
        try:
            told: Told = place.connection.recv()
        except (EOFError, OSError):
            self.end(number)
            return Told(failure=f"{self.called.key}: {self._named} ended its process")
        return told

    def _late(self, number: int) -> Told:
        self.end(number)
        return Told(
            failure=f"{self.called.key}: {self._named} took more than {self.seconds:g} s (pipeline.reward_timeout) and "
            f"was ended"
        )

    @property
    def _named(self) -> str:
        return self.called.factory or ", ".join(self.called.tools)


@contextmanager
def environments(called: Called, seconds: float) -> Iterator[Environments]:
    """What makes environments, until the block ends. Raises SettingError where the code does not load."""
    ours, theirs = Pipe()
    with theirs:
        # Sets have the same order in a run that goes on.
        command = [
            "/usr/bin/env",
            "PYTHONHASHSEED=0",
            sys.executable,
            "-P",
            "-m",
            PROCESS,
            str(theirs.fileno()),
        ]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    made = Environments(called, ours, process, seconds)
    try:
        try:
            ours.send(called)
            told = ours.recv() if ours.poll(STARTING_SECONDS) else Told(failure=_slow(called))
        except (EOFError, OSError):
            told = Told(failure=f"{called.key}: loading {made._named} ended the process")
        if told.failure is not None:
            raise SettingError(told.failure)
        yield made
    finally:
        made.close()


def _slow(called: Called) -> str:
    return f"{called.key}: {called.factory or ', '.join(called.tools)} did not load within {STARTING_SECONDS:g} s"
