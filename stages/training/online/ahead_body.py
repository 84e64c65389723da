"""Work that is done ahead, in order: by a thread beside the training, or at once."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Job = Callable[[], None]


class Ahead:
    """Does jobs of rounds one after another. `beside`: by a thread; else each is done where it is begun.

    What a job raises is raised by whoever waits for it.
    """

    def __init__(self, *, beside: bool) -> None:
        self._pool = ThreadPoolExecutor(1, "ahead") if beside else None
        self._waiting: dict[int, list[Future[None]]] = {}
        self._begun: set[int] = set()

    def begin(self, number: int, job: Job) -> None:
        """Do this job of a round, behind all that were begun before."""
        self._begun.add(number)
        if self._pool is None:
            job()
        else:
            self._waiting.setdefault(number, []).append(self._pool.submit(job))

    def has_begun(self, number: int) -> bool:
        """Whether a job of that round was begun."""
        return number in self._begun

    def wait_for(self, number: int) -> None:
        """Until the jobs of that round are done."""
        for one in self._waiting.pop(number, []):
            one.result()

    def settle(self) -> None:
        """Until all jobs are done."""
        for number in sorted(self._waiting):
            self.wait_for(number)

    def close(self) -> None:
        """Leave out what has not begun, and wait for the one that has."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
