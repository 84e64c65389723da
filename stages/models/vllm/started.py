"""A server of vLLM that lives as long as whoever started it asks it, and no longer."""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.protocols import THIS_MACHINE
from tunemill.stages.errors import SettingError
from tunemill.stages.models.guarded import guarded, program_of

LOG = "vllm.log"
POLL_SECONDS = 0.5
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
# What failed, in the words of Python; and what only says that something failed before.
FAILURE = re.compile(r"\b((?:\w+\.)*\w*(?:Error|Exception): \S.*)")
FOLLOWS = re.compile(
    r"EngineDeadError|See (?:root cause|stack trace)|initialization failed|CalledProcessError"
)
# In what it says where its share is more than is free.
OF_SHARE = "gpu memory utilization"
# In characters, of what a failure is told by.
LONGEST = 400


@dataclass(frozen=True)
class Keys:
    """What a user turns: how long to wait for a server, and its share of the GPU."""

    seconds: str = "start_seconds"
    share: str = "gpu_memory_utilization"


OF_ENGINE = Keys()


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
    arguments: Sequence[str],
    name: str,
    *,
    python: str | None,
    folder: Path,
    log: Path,
    seconds: float,
    environment: Mapping[str, str] | None = None,
    keys: Keys = OF_ENGINE,
) -> Iterator[Started]:
    """`vllm serve` with these arguments, from when it answers as `name` to the end of the block, however that ends.

    `python` is the interpreter beside which vLLM is, None: this one. It runs in `folder`, writes `log`, and finds
    `environment` beside what is fixed. Raises SettingError, which names one of `keys`, where it does not answer within
    `seconds`.
    """
    port = _free_port()
    program = program_of(python, "vllm.entrypoints.cli.main", {**FIXED, **(environment or {})})
    command = [*program, "serve", *arguments, "--host", THIS_MACHINE, "--port", str(port)]
    with guarded(command, folder=folder, log=log) as process:
        server = Started(f"http://{THIS_MACHINE}:{port}", process, log)
        _wait(server, name, seconds, keys)
        yield server


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((THIS_MACHINE, 0))
        return int(found.getsockname()[1])


def _wait(server: Started, name: str, seconds: float, keys: Keys) -> None:
    """Raises SettingError where the server ends, or is not there in time."""
    until = time.monotonic() + seconds
    while name not in served_by(server.url):
        if (reason := server.why_gone()) is not None:
            turn = f" The key is {keys.share}." if OF_SHARE in reason.lower() else ""
            raise SettingError(
                f"engine: vLLM did not start: {reason}.{turn} All that it said is in {server.log}"
            )
        if time.monotonic() > until:
            raise SettingError(
                f"engine: vLLM did not start within {seconds:.0f} s. What it says is in {server.log}; give it more "
                f"time with {keys.seconds}"
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
