"""A server of vLLM that lives as long as whoever started it asks it, and no longer."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.protocols import THIS_MACHINE
from tunemill.stages.errors import SettingError
from tunemill.stages.models.vllm import guard

LOG = "vllm.log"
POLL_SECONDS, GRACE_SECONDS = 0.5, 5.0
# What is fixed of the server's environment; a stage's own has nothing of vLLM's.
FIXED = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    # In GiB, of the memory of a machine without a GPU, of which it would take nine tenths.
    "VLLM_CPU_KVCACHE_SPACE": "2",
    # Bound to cores, threads wait by spinning.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
# Of this environment, and nothing for the packages of another one.
OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
# What failed, in the words of Python; and what only says that something failed before.
FAILURE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception): \S.*)")
FOLLOWS = re.compile(
    r"EngineDeadError|See (?:root cause|stack trace)|initialization failed|CalledProcessError"
)
# In characters, of what a failure is told by.
LONGEST = 400


@dataclass(frozen=True)
class Started:
    """A server that answers. `process` is its guard, whose group it is in."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def why_gone(self, seconds: float = 0.0) -> str | None:
        """What a server said last that has ended, or ends within some seconds; None of one that runs on."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return None if self.process.returncode is None else reason_in(self.log)


@contextmanager
def started(
    arguments: Sequence[str], name: str, *, python: str | None, folder: Path, log: Path, seconds: float
) -> Iterator[Started]:
    """`vllm serve` with these arguments, from when it answers as `name` to the end of the block, however that ends.

    `python` is the interpreter beside which vLLM is, None: this one. It runs in `folder` and writes `log`. Raises
    SettingError where it does not answer within `seconds`.
    """
    port = _free_port()
    command = [*_program(python), "serve", *arguments, "--host", THIS_MACHINE, "--port", str(port)]
    with ExitStack() as open_here:
        lifeline_read, lifeline_write = os.pipe()
        open_here.callback(os.close, lifeline_write)
        try:
            process = _start(command, lifeline_read, folder, log)
        finally:
            os.close(lifeline_read)
        open_here.callback(_end, process)
        server = Started(f"http://{THIS_MACHINE}:{port}", process, log)
        _wait(server, name, seconds)
        yield server


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


def _program(python: str | None) -> list[str]:
    left_out = [] if python is None else [word for name in OWN for word in ("-u", name)]
    fixed = [f"{name}={value}" for name, value in FIXED.items()]
    return ["env", *left_out, *fixed, python or sys.executable, "-m", "vllm.entrypoints.cli.main"]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((THIS_MACHINE, 0))
        return int(found.getsockname()[1])


def _wait(server: Started, name: str, seconds: float) -> None:
    """Raises SettingError where the server ends, or is not there in time."""
    until = time.monotonic() + seconds
    while name not in served_by(server.url):
        if (reason := server.why_gone()) is not None:
            raise SettingError(f"engine: vLLM did not start: {reason}. All that it said is in {server.log}")
        if time.monotonic() > until:
            raise SettingError(
                f"engine: vLLM did not start within {seconds:.0f} s. What it says is in {server.log}; give it more "
                f"time with start_seconds"
            )
        time.sleep(POLL_SECONDS)


def served_by(url: str) -> Mapping[str, Mapping[str, Any]]:
    """What a server on this machine calls its models, and what it says of each; nothing where it does not answer."""
    # No proxy leads to this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}/v1/models", timeout=POLL_SECONDS * 10) as reply:
            return {str(one["id"]): one for one in json.load(reply)["data"]}
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError):
        return {}


def reason_in(log: Path) -> str:
    """Of what a server said, why it ended: the last error that does not only point at another one."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    failures = [found[1].strip() for line in text.splitlines() if (found := FAILURE.search(line))]
    roots = [one for one in failures if not FOLLOWS.search(one)]
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it said nothing")
    return next(iter(roots[-1:] or failures[-1:]), last)[:LONGEST].rstrip(". ")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the guard's group: asked to, and after a while whatever is left of it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
