"""Leases in a team's store: which machine is computing a key right now.

`leases/<stage>/<key>.json` is an object that is created only where there is none and replaced only where it is still
what was read, so of two machines one gets it. Its `number` grows with every taking: it is the token by which a holder
that was thought dead and wakes up is told from the one of now. A holder writes it anew every few seconds with another
nonce, since some stores mark equal contents alike. No machine's clock counts: whoever waits counts by itself for how
long nothing changed. One that is given back stays, without a holder.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemill.resources.errors import StoreError
from tunemill.resources.lease import Holder, is_alive, this_process
from tunemill.resources.object_types import Stored
from tunemill.resources.objects import Objects


@dataclass(frozen=True)
class Rhythm:
    """Seconds: between two heartbeats, of silence after which a holder counts as dead, between two looks of one that
    waits, and between two words about that."""

    beat: float = 10.0
    expires: float = 120.0
    poll: float = 1.0
    remind: float = 30.0


@dataclass(frozen=True)
class State:
    """What a lease says: how often it was taken, and by whom if it is not given back."""

    number: int
    holder: Holder | None

    def as_bytes(self) -> bytes:
        """With a nonce: no two are equal."""
        held = None if self.holder is None else self.holder.as_text()
        return json.dumps({"number": self.number, "holder": held, "nonce": uuid.uuid4().hex}).encode()


@dataclass(frozen=True)
class TeamLease:
    """The right to compute a key for the team, for as long as no other machine has taken this one for dead."""

    objects: Objects
    name: str
    state: State

    def check(self) -> None:
        """Raises StoreError where the lease is no longer this holder's, and UnreachableError where nobody answers."""
        stored = self.objects.get(self.name)
        now = _state_of(stored)
        if now != self.state:
            other = now.holder if now is not None and now.holder is not None else "somebody"
            raise StoreError(
                f"{self.objects.url}: {other} has taken over what is computed here, for this process gave no sign of "
                f"life for too long"
            )


@contextmanager
def team_lease(
    objects: Objects, name: str, say: Callable[[str], None], rhythm: Rhythm
) -> Iterator[TeamLease]:
    """Hold the lease of a name; wait for another holder first, saying whom and for how long.

    Where nothing answers meanwhile the work goes on: what counts is asked at its end, by `TeamLease.check`.
    """
    mark, lease = _take(objects, name, say, rhythm)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(lease, mark, stop, rhythm), daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        stop.set()
        beat.join(rhythm.expires)
        _give_back(lease)


def _take(objects: Objects, name: str, say: Callable[[str], None], rhythm: Rhythm) -> tuple[str, TeamLease]:
    me = replace(_this_machine(), token=uuid.uuid4().hex)
    began, said_at = time.monotonic(), float("-inf")
    seen, since = "", began
    while True:
        stored = objects.get(name)
        now = _state_of(stored)
        if stored is not None and stored.mark != seen:
            seen, since = stored.mark, time.monotonic()
        holder = None if now is None else now.holder
        if holder is None or _is_dead(holder, time.monotonic() - since, rhythm):
            mine = State(1 if now is None else now.number + 1, me)
            content = mine.as_bytes()
            mark = (
                objects.create(name, content)
                if stored is None
                else objects.replace(name, content, stored.mark)
            )
            if mark is not None:
                return mark, TeamLease(objects, name, mine)
            continue
        if time.monotonic() - said_at >= rhythm.remind:
            said_at = time.monotonic()
            say(
                f"waiting for {_shown(holder)}, which is computing this for the team already "
                f"({said_at - began:.0f} s so far)"
            )
        time.sleep(rhythm.poll)


def _is_dead(holder: Holder, silence: float, rhythm: Rhythm) -> bool:
    # A process that lives may have let go while nobody answered, as this one may.
    return is_alive(_local(holder)) is False or silence >= rhythm.expires


def _beat(lease: TeamLease, mark: str, stop: threading.Event, rhythm: Rhythm) -> None:
    while not stop.wait(rhythm.beat):
        try:
            new = lease.objects.replace(lease.name, lease.state.as_bytes(), mark)
            if new is None:
                stored = lease.objects.get(lease.name)
                if stored is None or _state_of(stored) != lease.state:
                    # Another machine's: this one is told at its end.
                    return
                new = stored.mark
            mark = new
        except StoreError:
            # Tried again at the next beat.
            continue


def _give_back(lease: TeamLease) -> None:
    """Leave the lease without a holder. Where nobody answers, others wait until it counts as dead."""
    try:
        stored = lease.objects.get(lease.name)
        if stored is not None and _state_of(stored) == lease.state:
            lease.objects.replace(lease.name, State(lease.state.number, None).as_bytes(), stored.mark)
    except StoreError:
        return


def _state_of(stored: Stored | None) -> State | None:
    """What a lease says; one that cannot be read holds nothing."""
    if stored is None:
        return None
    try:
        document: Any = json.loads(stored.content)
        number, held = document["number"], document["holder"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return State(0, None)
    holder = Holder.from_text(held) if isinstance(held, str) else None
    return State(number if isinstance(number, int) else 0, holder)


def _boot() -> str:
    """This boot of this machine: two machines may go by one name, and count their processes alike."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return uuid.uuid4().hex


BOOT = _boot()


def _this_machine() -> Holder:
    me = this_process()
    return replace(me, host=f"{me.host} {BOOT}")


def _local(holder: Holder) -> Holder:
    """The holder as `lease.is_alive` knows those of this machine; a stranger stays one."""
    host = holder.host.removesuffix(f" {BOOT}")
    return replace(holder, host=host) if host != holder.host else replace(holder, host=f"{host} elsewhere")


def _shown(holder: Holder) -> str:
    return f"process {holder.pid} on {holder.host.partition(' (')[0]}"
