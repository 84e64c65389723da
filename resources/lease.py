"""Leases: who is computing a key, or using a GPU, right now.

A lease is a small JSON file with host, process, a token and a heartbeat (its mtime). It is dead when its process is
gone (same host) or its heart has stopped (another host). Taking one over happens under a file lock. A holder that was
only stopped meanwhile (a suspended machine) still believes that it holds: what must not happen twice happens in
`Lease.guarded`, which refuses whose token is no longer in the file.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tunemill.resources.errors import StoreError

HEARTBEAT_SECONDS = 5.0
EXPIRES_SECONDS = 60.0
POLL_SECONDS = 0.1
REMIND_SECONDS = 30.0


@dataclass(frozen=True)
class Holder:
    """What a lease file says. `born` is when the process started; `token` is of this one holding."""

    host: str
    pid: int
    born: str | None
    token: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def as_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str | bytes) -> "Holder | None":
        """What `as_text` wrote; None for any other text."""
        try:
            held = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        is_whole = isinstance(held.pid, int) and all(
            isinstance(part, str) for part in (held.host, held.token)
        )
        return held if is_whole else None


@dataclass(frozen=True)
class Lease:
    """The right to compute something, for as long as nobody else has taken this for dead."""

    path: Path
    token: str

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Nobody takes the lease over meanwhile. Raises StoreError if somebody has."""
        with _guarded(self.path):
            holder = _read(self.path)
            if holder is None or holder.token != self.token:
                raise StoreError(
                    f"{self.path}: {holder or 'somebody'} has taken over, for this process gave no sign of life for "
                    f"{EXPIRES_SECONDS:.0f} s; nothing was published by this one. Run again to use the other's result"
                )
            yield


@dataclass
class _Watch:
    """When a waiting process last saw a heart beat, by its own clock: those of two hosts may differ."""

    beat: int = 0
    seen: float = 0.0

    def silence(self, beat: int) -> float:
        """Seconds since the heartbeat was another one."""
        now = time.monotonic()
        if beat != self.beat:
            self.beat, self.seen = beat, now
        return now - self.seen


@contextmanager
def lease(path: Path, say: Callable[[str], None]) -> Iterator[Lease]:
    """Hold the lease at `path`; wait for another holder first, saying whom and for how long."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = Lease(path, uuid.uuid4().hex)
    waited_since, said_at, watch = time.monotonic(), float("-inf"), _Watch()
    while (holder := _try_take(mine, watch)) is not None:
        if time.monotonic() - said_at >= REMIND_SECONDS:
            said_at = time.monotonic()
            say(
                f"waiting for {holder}, which is computing this already ({said_at - waited_since:.0f} s so far)"
            )
        time.sleep(POLL_SECONDS)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(mine, stop), daemon=True)
    beat.start()
    try:
        yield mine
    finally:
        stop.set()
        beat.join()
        with _guarded(path):
            if (holder := _read(path)) is not None and holder.token == mine.token:
                path.unlink()


def is_held(path: Path) -> bool:
    """Whether somebody alive holds the lease at `path`."""
    return living_holder(path) is not None


def living_holder(path: Path) -> Holder | None:
    """Who holds the lease at `path`, if anybody alive does."""
    return _living_holder(path, None)


@contextmanager
def while_free(path: Path) -> Iterator[bool]:
    """Nobody takes the lease at `path` meanwhile; False where somebody alive holds it already."""
    with _guarded(path):
        yield not is_held(path)


def this_host() -> str:
    """This host as far as process numbers mean something: containers of one host count as several."""
    try:
        return f"{socket.gethostname()} ({os.readlink('/proc/self/ns/pid')})"  # noqa: PTH115  no real path
    except OSError:
        return socket.gethostname()


def this_process(token: str = "") -> Holder:
    """This process, as others on this machine can recognise it."""
    return Holder(this_host(), os.getpid(), _born(os.getpid()), token)


def is_alive(holder: Holder) -> bool | None:
    """Whether the process is still there; None where that cannot be told from here."""
    if holder.host != this_host() or holder.born is None:
        return None
    return _born(holder.pid) == holder.born


def _try_take(mine: Lease, watch: _Watch) -> Holder | None:
    """Take the lease and return None, or return who holds it."""
    with _guarded(mine.path):
        holder = _living_holder(mine.path, watch)
        if holder is None:
            _write(mine.path, this_process(mine.token).as_text())
        return holder


def _write(path: Path, text: str) -> None:
    """Readers see the old lease or the new one, never half of one; whatever else lies there is moved away."""
    if path.is_dir() and not path.is_symlink():
        path.rename(path.with_name(f"{path.name}.damaged.{time.time_ns()}"))
    beside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    beside.write_text(text)
    beside.replace(path)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> Holder | None:
    """Who the file says holds the lease; None where there is no lease, or a damaged one, which holds nothing."""
    try:
        return Holder.from_text(path.read_bytes())
    except PermissionError:
        return Holder("an unknown host", 0, None)
    except OSError:
        return None


def _living_holder(path: Path, watch: _Watch | None) -> Holder | None:
    holder = _read(path)
    if holder is None:
        return None
    if (alive := is_alive(holder)) is not None:
        return holder if alive else None
    try:
        beat = path.stat().st_mtime_ns
    except OSError:
        return None
    # A clock that was ahead would let a dead heart beat on, so a waiting process counts the silence itself.
    silence = max(time.time() - beat / 1e9, 0.0 if watch is None else watch.silence(beat))
    return holder if silence < EXPIRES_SECONDS else None


def _born(pid: int) -> str | None:
    """When a process of this machine started (clock ticks since boot), None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _beat(mine: Lease, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        holder = _read(mine.path)
        if holder is None or holder.token != mine.token:
            return
        with contextlib.suppress(FileNotFoundError):
            os.utime(mine.path)
