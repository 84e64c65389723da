"""A PostgreSQL server of a test's own."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEBIANS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def program(name: str) -> str:
    """Where a program of PostgreSQL is; skips the test where there is none."""
    found = shutil.which(name) or next((str(b / name) for b in DEBIANS if (b / name).is_file()), None)
    if found is None:
        pytest.skip(f"{name} is not here: install Debian's postgresql")
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server on a free port with its data in a folder, which must be reachable for everybody; yields its URL."""
    initdb, server = program("initdb"), program("postgres")
    # It refuses to run as root.
    user = "nobody" if os.getuid() == 0 else None
    data = folder / "data"
    data.mkdir()
    if user is not None:
        os.chown(data, pwd.getpwnam(user).pw_uid, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    as_user = {"user": user, "cwd": "/", "env": {**os.environ, "HOME": "/"}}
    subprocess.run(
        [initdb, "-D", data, "-U", "tunemill", "-A", "trust"], check=True, capture_output=True, **as_user
    )
    command = [server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **as_user)
    try:
        wait_for(port, running)
        yield f"postgresql://tunemill@127.0.0.1:{port}/postgres"
    finally:
        running.terminate()
        running.wait(30)


def wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert running.poll() is None and time.monotonic() < deadline, "PostgreSQL did not start"
            time.sleep(0.1)
        else:
            return
