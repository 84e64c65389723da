"""Leases: who is computing a key, or using a GPU, right now.

A lease is a small JSON file with host, process and a heartbeat (its mtime). It is dead when its process is
gone (same host) or its heartbeat is old (another host). Taking one over happens under a file lock.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HEARTBEAT_SECONDS = 5.0
EXPIRES_SECONDS = 60.0
POLL_SECONDS = 0.1
REMIND_SECONDS = 30.0


@contextmanager
def lease(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lease at `path`; wait for another holder first, saying whom and for how long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waited_since, said_at = time.monotonic(), float("-inf")
    while (holder := _try_take(path)) is not None:
        if time.monotonic() - said_at >= REMIND_SECONDS:
            said_at = time.monotonic()
            say(
                f"waiting for {holder}, which is computing this already ({said_at - waited_since:.0f} s so far)"
            )
        time.sleep(POLL_SECONDS)
    mine = path.read_text()
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        with _guarded(path):
            if path.exists() and path.read_text() == mine:
                path.unlink()


def _try_take(path: Path) -> str | None:
    """Take the lease and return None, or return who holds it."""
    with _guarded(path):
        holder = _living_holder(path)
        if holder is None:
            facts = {
                "host": this_host(),
                "pid": os.getpid(),
                "born": _born(os.getpid()),
                "token": uuid.uuid4().hex,
            }
            path.write_text(json.dumps(facts))
        return holder


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def this_host() -> str:
    """This host as far as process numbers mean something: containers of one host count as several."""
    try:
        return f"{socket.gethostname()} ({os.readlink('/proc/self/ns/pid')})"  # noqa: PTH115  no real path
    except OSError:
        return socket.gethostname()


def _living_holder(path: Path) -> str | None:
    try:
        held = json.loads(path.read_text())
        age = time.time() - path.stat().st_mtime
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if held["host"] == this_host() and held["born"] is not None:
        alive = _born(held["pid"]) == held["born"]
    else:
        alive = age < EXPIRES_SECONDS
    return f"process {held['pid']} on {held['host']}" if alive else None


def _born(pid: int) -> str | None:
    """When a process of this machine started (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            os.utime(path)
        except FileNotFoundError:
            return


def is_held(path: Path) -> bool:
    """Whether somebody alive holds the lease at `path`."""
    return _living_holder(path) is not None
