"""Which part of each step a process trains, where several train together.

A step's sequences are cut into micro batches as one process cuts them, and each process takes every so many of them: so
a step has the same rows, in the same micro batches, however many processes there are. Where a step has fewer micro
batches than processes, some compute one that is left over, and it counts for nothing: all must exchange gradients.
Processes that split each sequence among them have the same micro batches, and are one process here.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from tunemill.stages.training.schedule import Schedule


@dataclass(frozen=True)
class Share:
    """The part of process `rank` of `ranks`; `micro` sequences are a micro batch.

    Where sequences are split, each of the `ranks` is `together` processes, of which this one is number `part`.
    """

    schedule: Schedule
    micro: int
    ranks: int = 1
    rank: int = 0
    together: int = 1
    part: int = 0

    @property
    def processes(self) -> int:
        """How many exchange gradients."""
        return self.ranks * self.together

    @property
    def accumulation(self) -> int:
        """Micro batches of one process in a whole step."""
        return self.schedule.per_step // self.micro // self.ranks

    def __len__(self) -> int:
        """Micro batches of one process in an epoch."""
        return math.ceil(math.ceil(self.schedule.sequences / self.micro) / self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        """The places, in the order of an epoch, of the sequences of each micro batch of this process."""
        last = math.ceil(self.schedule.sequences / self.micro) - 1
        for number in range(len(self)):
            start = min(number * self.ranks + self.rank, last) * self.micro
            yield list(range(start, min(start + self.micro, self.schedule.sequences)))

    def micro_batches(self, step: int) -> int:
        """Micro batches that all processes have in a step, counted from 1."""
        _, first, end = self.schedule.place(step)
        return math.ceil((end - first) / self.micro)

    def number(self, at: int) -> int:
        """Which one of its step the `at`-th micro batch of this process is, from 0."""
        return at * self.ranks + self.rank

    def counts(self, step: int, at: int) -> bool:
        """Whether the `at`-th micro batch of this process in a step is one of the step's."""
        return self.number(at) < self.micro_batches(step)
