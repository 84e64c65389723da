"""Which of several ranks hangs: it stands still, outside of any call that waits for others, and all others wait for it.

One that computes, reads, writes, or waits for a disk, a GPU or another program does not stand still
(resources/rank_stillness.py), and where all do something slow none waits for another: neither is ended, however long it
takes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from tunemill.resources.rank_failures import HUNG, Standing
from tunemill.resources.rank_stacks import Frames, may_wait, waits
from tunemill.resources.rank_stillness import SAMPLE_SECONDS, Stillness, look_at

# In seconds. Before that nothing is looked at, for most steps are shorter.
SILENT = 2.0
# So long after a rank was found hanging it must be at the same line still.
AGAIN = 2.0


class HangWatch:
    """Looks at the ranks while none of them says anything, and fails the one that hangs.

    `limit`: how many seconds one may stand still; 0: any. `ask` brings the frames of the ranks that run.
    """

    def __init__(self, standings: Sequence[Standing], limit: float, ask: Callable[[], None]) -> None:
        self._standings = standings
        self._limit = limit
        self._ask = ask
        self._still = [Stillness() for _ in standings]
        self._looked_at = 0.0
        self._asks_at = 0.0
        self._found: dict[int, Frames] = {}

    def look(self, now: float) -> None:
        """Look once more, and end a rank that hangs."""
        if not self._limit or not self._all_run() or now - self._heard_at() < SILENT:
            self._still = [Stillness() for _ in self._standings]
            self._found = {}
            return
        if now - self._looked_at < SAMPLE_SECONDS:
            return
        self._looked_at = now
        for one, still in zip(self._standings, self._still, strict=True):
            still.add(look_at(one.pid), now)
        long = {rank for rank, still in enumerate(self._still) if still.seconds() >= self._limit}
        if not long:
            self._found = {}
        elif now >= self._asks_at:
            self._judge(long, now)

    def pardon(self) -> None:
        """The ranks were asked where they are, and have answered."""
        for one, still in zip(self._standings, self._still, strict=True):
            if still.begun is not None:
                still.pardon(look_at(one.pid))

    def _all_run(self) -> bool:
        return all(
            one.pid and not one.is_over and not one.done and one.failed_at is None for one in self._standings
        )

    def _heard_at(self) -> float:
        return max(one.heard_at for one in self._standings)

    def _judge(self, long: Collection[int], now: float) -> None:
        """Ask where all are. Whoever hangs now, and did a moment ago at the same place, is ended."""
        for one in self._standings:
            one.frames = ()
        self._ask()
        still = {rank for rank in long if self._standings[rank].threads_idle}
        hanging = hung({rank: one.frames for rank, one in enumerate(self._standings)}, still)
        self._asks_at = now + (AGAIN if hanging else self._limit)
        for rank, frames in hanging.items():
            if self._found.get(rank) == frames:
                one = self._standings[rank]
                one.still_for = self._still[rank].seconds()
                one.fail(HUNG, False, now)
                one.kill()
        self._found = hanging


def hung(places: Mapping[int, Frames], still: Collection[int]) -> dict[int, Frames]:
    """Those of the `still` ranks that the others wait for, and where they are; none where one other does not wait."""
    found = {rank: places[rank] for rank in still if places[rank] and not may_wait(places[rank])}
    others = [frames for rank, frames in places.items() if rank not in found]
    return found if others and all(frames and waits(frames) for frames in others) else {}
