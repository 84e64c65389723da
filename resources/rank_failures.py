"""Which rank failed first, and how it is said."""

import os
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.machine_failures import machine_failed
from tunemill.resources.rank_stacks import Frames, place, waits

TAIL_LINES = 30
# How gloo, NCCL and torch say that another rank is gone, or does not answer: what a rank fails of when another has.
OF_ANOTHER = re.compile(
    r"Connection (reset|closed|refused)|closed by peer|Broken pipe|timed? ?out|Timeout|recvValue failed|"
    r"ncclRemoteError|ncclSystemError|remote process exited|Socket Timeout|TCPStore",
    re.IGNORECASE,
)
WAITED = re.compile(r"timed? ?out|timeout", re.IGNORECASE)
STOPPED, HUNG = "stopped", "hung"
GO_ON = "run again to go on from its last checkpoint, if any"
# So long a process that has closed its pipe may take to end.
LAST_SECONDS = 1.0
# In seconds: others notice at once that the process of a rank is gone.
AT_ONCE = 2.0


@dataclass
class Standing:
    """What is known of a rank while it runs, by the clock that only goes forward."""

    pid: int = 0
    heard_at: float = 0.0
    last: str = ""
    done: bool = False
    is_over: bool = False
    message: str = ""
    of_user: bool = False
    failed_at: float | None = None
    exit: int | None = None
    stopped_since: float | None = None
    still_for: float = 0.0
    killed: bool = False
    frames: Frames = ()
    threads_idle: bool = True

    def fail(self, message: str, of_user: bool, now: float) -> None:
        """It failed, so far as is known now; what was known before stays."""
        if self.failed_at is None:
            self.message, self.of_user, self.failed_at = message, of_user, now

    def end(self, now: float) -> None:
        """Its pipe has ended: its process is gone, or about to be."""
        self.is_over = True
        if self.done or self.failed_at is not None:
            return
        self.failed_at = now
        until = time.monotonic() + LAST_SECONDS
        # Whoever waits for it gets its exit code too: it is only looked at.
        with suppress(ChildProcessError):
            while self.pid and self.exit is None and time.monotonic() < until:
                found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if found is not None:
                    by_signal = found.si_code != os.CLD_EXITED
                    self.exit = -found.si_status if by_signal else found.si_status
                else:
                    time.sleep(0.01)

    def look(self, now: float) -> None:
        """Whether its process is stopped, and since when."""
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state != "T":
            self.stopped_since = None
        elif self.stopped_since is None:
            self.stopped_since = now

    def stopped_for(self, now: float) -> float:
        """For how many seconds it has been stopped."""
        return 0.0 if self.stopped_since is None else now - self.stopped_since

    def kill(self) -> None:
        """End its process, which has not been waited for: its number is still its own."""
        if not self.killed:
            self.killed = True
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def verdict(
    standings: Sequence[Standing], exits: Mapping[int, int], log: Callable[[int], Path]
) -> dict[str, Any]:
    """The event that tells of the failure: of the rank that failed first, and not because of another.

    `exits` are exit codes that are known beside; `log` is where what a rank prints is kept.
    """
    when = {rank: one.failed_at for rank, one in enumerate(standings) if one.failed_at is not None}
    if not when:
        return _crashed("the ranks ended, and none of them said why", again=False)
    begun = min(when.values())
    # Those that end without a word after another has failed were ended because of it: but for one that was killed at
    # that moment, of which another may have told before its own end was noticed.
    own = {
        rank: at
        for rank, at in when.items()
        if at == begun or standings[rank].message or _was_killed(standings[rank], at - begun)
    }
    first = {rank: at for rank, at in own.items() if not _of_another(standings[rank])}
    rank = min(first or own, key=own.__getitem__)
    one, who = standings[rank], f"rank {rank} of {len(standings)}"
    if one.of_user:
        return {"type": "failed", "message": one.message}
    if one.message == STOPPED:
        return _crashed(f"{who} was stopped (SIGSTOP), so all were ended; {GO_ON}", again=True)
    if one.message == HUNG:
        return _crashed(_hung(who, one, log(rank)), again=True)
    words = one.message or _tail(log(rank))
    if (not first or not one.message) and WAITED.search(words):
        return _crashed(_waited(standings, rank, words, log), again=True)
    if not one.message:
        return _crashed(_ended(who, exits.get(rank) if one.exit is None else one.exit), again=True)
    tail = "\n".join(words.rstrip().splitlines()[-TAIL_LINES:])
    return _crashed(
        f"{who} failed; the end of what it said:\n{tail}", again=not first or machine_failed(words)
    )


def _waited(standings: Sequence[Standing], rank: int, words: str, log: Callable[[int], Path]) -> str:
    """Of a rank that no longer waited for another one."""
    others = [number for number in range(len(standings)) if number != rank]
    silent = min(others, key=lambda number: (_waits(standings[number]), standings[number].heard_at))
    last, frames = standings[silent].last, standings[silent].frames
    at = f" It is at {place(frames)}." if frames else ""
    return (
        f"rank {rank} of {len(standings)} waited for the others longer than ddp_timeout allows, and rank {silent} was "
        f"heard of least{f' (it was {last})' if last else ''}: it hangs, or is far slower than the others.{at} "
        f"Look at {log(silent)}; {GO_ON}. How it was said: {_line_of(WAITED, words)}"
    )


def _hung(who: str, one: Standing, log: Path) -> str:
    """Of a rank that others waited for, and that did nothing."""
    last = f" (it was {one.last})" if one.last else ""
    return (
        f"{who} hangs{last}: for {one.still_for:.0f} s it has computed, read and written nothing, while the others "
        f"wait for it, so all were ended. It is at {place(one.frames)}. Look at {log}; {GO_ON}. "
        f"pipeline.launcher.hangs_after is how long it may do so"
    )


def _waits(one: Standing) -> bool:
    """Whether a rank is known to wait for others itself."""
    return bool(one.frames) and waits(one.frames)


def _line_of(pattern: re.Pattern[str], text: str) -> str:
    """The last line in which the pattern is found."""
    return next(line.strip() for line in reversed(text.splitlines()) if pattern.search(line))


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(lines[-TAIL_LINES:])


def _of_another(one: Standing) -> bool:
    """Whether a rank failed of what it no longer heard of another."""
    return not one.of_user and bool(OF_ANOTHER.search(one.message))


def _was_killed(one: Standing, seconds: float) -> bool:
    """Whether a process was ended by a signal that neither this one nor torch's agent sends so soon after a failure."""
    by_agent = (None, -signal.SIGTERM)
    return not one.killed and seconds < AT_ONCE and one.exit not in by_agent and (one.exit or 0) < 0


def _ended(who: str, code: int | None) -> str:
    """Of a process that ended without a word."""
    if code is None:
        return f"{who} ended without a word; {GO_ON}"
    if code >= 0:
        return f"{who} ended with exit code {code} and without a word; {GO_ON}"
    name = signal.Signals(-code).name
    hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
    return f"{who} was ended by {name}{hint}; {GO_ON}"


def _crashed(message: str, *, again: bool) -> dict[str, Any]:
    return {"type": "crashed", "message": message, "again": again}
