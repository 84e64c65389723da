"""A Ray cluster of one machine, with the packages that it needs."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from support.own_environment import ROOT, packages_with_ray

STARTS_WITHIN, TRIES = 240, 2
STARTED = "Ray runtime started"


@dataclass(frozen=True)
class Cluster:
    """`address` is where drivers connect, `jobs` where jobs are sent; `environment` is that of both."""

    address: str
    jobs: str
    environment: dict[str, str]


@contextmanager
def ray_cluster(cpus: int = 4) -> Iterator[Cluster]:
    """Start a head, end it and all that it has started. Skips where Ray cannot be installed."""
    packages = packages_with_ray()
    # Below a short name: sockets have paths of at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    address, jobs = (f"127.0.0.1:{_free_port()}" for _ in range(2))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests"), packages]),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_USAGE_STATS_ENABLED": "0",
        # On a machine that does much else its server is not there within 20 seconds, nor its dashboard within 60.
        "RAY_gcs_server_port_wait_time_s": str(STARTS_WITHIN),
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": str(STARTS_WITHIN),
        "OMP_NUM_THREADS": "1",
        # As a cluster has it by default, and not that of the home folder.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    command += ["--port", address.partition(":")[2], "--num-cpus", str(cpus), "--num-gpus", "0"]
    command += ["--include-dashboard", "true", "--dashboard-port", jobs.partition(":")[2]]
    command += ["--node-ip-address", "127.0.0.1", "--temp-dir", str(folder)]
    head = None
    try:
        for _ in range(TRIES):
            head = head or _started(command, environment, jobs, folder)
        assert head is not None, "Ray does not start"
        yield Cluster(address, jobs, environment)
    finally:
        if head is not None:
            head.terminate()
            with suppress(subprocess.TimeoutExpired):
                head.wait(20)
            _end(head, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _started(
    command: list[str], environment: dict[str, str], jobs: str, folder: Path
) -> subprocess.Popen[bytes] | None:
    """The head when it answers; None where it has given up, as it does on a busy machine after 30 seconds."""
    said = folder / "head.log"
    with said.open("w") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    until = time.monotonic() + STARTS_WITHIN
    while STARTED not in said.read_text() or not _answers(jobs):
        if head.poll() is not None or time.monotonic() > until:
            _end(head, folder)
            return None
        time.sleep(0.5)
    return head


def _end(head: subprocess.Popen[bytes], folder: Path) -> None:
    """Kill it, and its servers, which do not end with it."""
    head.kill()
    head.wait()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder).encode() in process.read_bytes():
                os.kill(int(process.parent.name), signal.SIGKILL)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/api/version", timeout=5):
            return True
    except urllib.error.HTTPError:
        # It wants the token.
        return True
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
