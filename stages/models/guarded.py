"""Programs of other environments that live as long as the stage that runs them, and no longer."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tunemill.stages.models import guard

GRACE_SECONDS = 5.0
# Of this environment, and nothing for the packages of another one.
OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def program_of(python: str | None, module: str, environment: Mapping[str, str]) -> list[str]:
    """A module that is run by an interpreter, None: this one, with more in its environment."""
    left_out = [] if python is None else [word for name in OWN for word in ("-u", name)]
    more = [f"{name}={value}" for name, value in environment.items()]
    return ["env", *left_out, *more, python or sys.executable, "-m", module]


@contextmanager
def guarded(command: Sequence[str], *, folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs in `folder` and writes `log`, ended with all that it started when the block ends.

    It also ends where this process does, however that is killed. Given is its guard, which ends as it does.
    """
    with ExitStack() as open_here:
        lifeline_read, lifeline_write = os.pipe()
        open_here.callback(os.close, lifeline_write)
        try:
            process = _start(command, lifeline_read, folder, log)
        finally:
            os.close(lifeline_read)
        open_here.callback(_end, process)
        yield process


def _start(command: Sequence[str], lifeline: int, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """The guard of the command, which leads a group of its own."""
    with log.open("ab") as output:
        return subprocess.Popen(
            # By its path: with -I nothing of a user's environment is in its way.
            [sys.executable, "-I", str(guard.__file__), str(lifeline), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            pass_fds=(lifeline,),
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the guard's group: asked to, and after a while whatever is left of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
