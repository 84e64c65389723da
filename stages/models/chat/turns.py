"""Who is answered next: one at a time, in the order in which they came, and no more waiting than will be heard."""

import time
from collections import deque
from threading import Condition

# So many may wait beside the one that is answered; each takes a thread.
WAITING = 32
# Of an answer nobody knows yet how long it takes.
FIRST_GUESS = 5.0


class Turn:
    """A place in the queue. It is left once, by whoever took it, whether its turn came or not."""

    def __init__(self, turns: "Turns") -> None:
        self._turns = turns

    def wait(self) -> None:
        """Until those before it are done."""
        self._turns.wait(self)

    def leave(self) -> None:
        """Done, or not wanted any more; a second time does nothing."""
        self._turns.leave(self)


class Turns:
    """A queue of at most `waiting` beside the one that is answered. Threads may share it."""

    def __init__(self, waiting: int = WAITING) -> None:
        self._waiting = waiting
        self._queue: deque[Turn] = deque()
        self._changed = Condition()
        self._began: float | None = None
        self._seconds = FIRST_GUESS

    def take(self) -> Turn | None:
        """The last place; None where as many wait as may."""
        with self._changed:
            if len(self._queue) > self._waiting:
                return None
            turn = Turn(self)
            self._queue.append(turn)
            return turn

    def wait(self, turn: Turn) -> None:
        with self._changed:
            self._changed.wait_for(lambda: turn not in self._queue or self._queue[0] is turn)
            self._began = time.monotonic()

    def leave(self, turn: Turn) -> None:
        with self._changed:
            if turn not in self._queue:
                return
            if self._queue[0] is turn and self._began is not None:
                # The newest answers count most.
                self._seconds += (time.monotonic() - self._began - self._seconds) / 4
                self._began = None
            self._queue.remove(turn)
            self._changed.notify_all()

    @property
    def seconds(self) -> int:
        """After how long a place may be free: as long as an answer takes, at least a second."""
        return max(1, round(self._seconds))
