"""Whether a process stands still: nothing of it computes, reads or writes, and its main thread sleeps or waits for a
lock, and does not wake up.

What waits for a disk, the network or a GPU is in another call of the kernel, so it does not stand still, however long
it takes; nor does what has started another process, for which it may wait; nor what cannot be looked at.
"""

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SAMPLE_SECONDS = 1.0
# Between two samples that lie further apart (a frozen machine, a debugger) anything may have happened.
GAP_SECONDS = 5.0
# One that only watches runs for a moment now and then; one that computes, or would like to, does all the time.
TRIES, PAUSE_SECONDS = 5, 0.02
# What threads that only watch, such as NCCL's, may use of a core.
IDLE_SHARE, IDLE_SECONDS = 0.02, 0.1
# The kernel's numbers of calls: those in which a main thread sleeps or waits for a lock, and those in which other
# threads wait for something to do. Of other machines than these nothing is known.
ASLEEP = {
    # futex, nanosleep, clock_nanosleep, pause
    "x86_64": frozenset({202, 35, 230, 34}),
    "aarch64": frozenset({98, 101, 115}),
}
WATCHES = {
    # poll, select, accept, epoll_wait, pselect6, ppoll, epoll_pwait, accept4, epoll_pwait2
    "x86_64": frozenset({7, 23, 43, 232, 270, 271, 281, 288, 441}),
    "aarch64": frozenset({22, 72, 73, 202, 242, 441}),
}


@dataclass(frozen=True)
class Look:
    """What a process has done so far, and whether it only waits for itself."""

    wakes: int
    """Of its main thread: one that asks again and again whether something has come wakes up for it."""
    seconds: float
    """Of cores."""
    bytes: int
    """Read and written."""
    asleep: bool


@dataclass
class Stillness:
    """Since when a process has stood still, by looks at it of which none lies long after the one before."""

    begun: float | None = None
    looked_at: float = 0.0
    first: Look | None = None

    def add(self, look: Look | None, now: float) -> None:
        """Take a look into account; None where none could be had."""
        if look is None or not look.asleep:
            self.begun = None
        elif self.begun is None or now - self.looked_at > GAP_SECONDS or self._has_moved(look, now):
            self.begun, self.first = now, look
        self.looked_at = now

    def _has_moved(self, look: Look, now: float) -> bool:
        assert self.begun is not None and self.first is not None
        used, may = look.seconds - self.first.seconds, IDLE_SECONDS + IDLE_SHARE * (now - self.begun)
        return look.wakes != self.first.wakes or look.bytes != self.first.bytes or used > may

    def pardon(self, look: Look | None) -> None:
        """What it has done until this look was asked of it from outside."""
        if self.begun is not None and self.first is not None and look is not None:
            self.first = look

    def seconds(self) -> float:
        """For how long it has stood still."""
        return 0.0 if self.begun is None else self.looked_at - self.begun


def look_at(pid: int) -> Look | None:
    """A look at a process; None where it has ended, or the kernel does not tell."""
    for _ in range(TRIES):
        found = _look(pid)
        if found is None or found.asleep:
            break
        time.sleep(PAUSE_SECONDS)
    return found


def _look(pid: int) -> Look | None:
    machine = platform.machine()
    if machine not in ASLEEP:
        return None
    try:
        threads = [int(thread.name) for thread in (PROC / f"{pid}/task").iterdir()]
        return Look(
            wakes=_wakes(pid),
            seconds=_seconds(pid),
            bytes=_bytes(pid),
            asleep=all(_waits(pid, thread, machine) and _is_childless(pid, thread) for thread in threads),
        )
    except (OSError, ValueError):
        # It has ended, or the kernel was told not to tell.
        return None


def _is_childless(pid: int, thread: int) -> bool:
    return not (PROC / f"{pid}/task/{thread}/children").read_text().split()


def _wakes(pid: int) -> int:
    words = (PROC / f"{pid}/task/{pid}/status").read_text().split()
    return int(words[words.index("voluntary_ctxt_switches:") + 1])


def _waits(pid: int, thread: int, machine: str) -> bool:
    folder = PROC / f"{pid}/task/{thread}"
    if (folder / "stat").read_text().rpartition(")")[2].split()[0] != "S":
        return False
    # Of one that runs it says so, and of one that waits for a page of memory -1.
    call = (folder / "syscall").read_text().split()[0]
    allowed = ASLEEP[machine] if thread == pid else ASLEEP[machine] | WATCHES[machine]
    return call.lstrip("-").isdigit() and int(call) in allowed


def _seconds(pid: int) -> float:
    """Of cores, with those of children that have ended."""
    fields = (PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _bytes(pid: int) -> int:
    words = (PROC / f"{pid}/io").read_text().split()
    return sum(int(words[words.index(name) + 1]) for name in ("rchar:", "wchar:"))
