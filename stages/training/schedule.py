"""How many optimizer steps there are, and at which of them something is due."""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

# Axolotl's defaults where the config says nothing.
WARMUP_SHARE = 0.03
WARMUP_LIMIT = 100
LOGGING_SHARE = 0.005
LOGGING_LIMIT = 10


@dataclass(frozen=True)
class Schedule:
    """Optimizer steps of a run; `per_step` sequences go into each, fewer into the last of an epoch."""

    sequences: int
    per_step: int
    steps_per_epoch: int
    total: int

    def place(self, step: int) -> tuple[int, int, int]:
        """Epoch of a step (counted from 1), and its first and last+1 sequence in that epoch's order."""
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        first = within * self.per_step
        return epoch, first, min(first + self.per_step, self.sequences)


def share_of(total: int, share: float) -> Fraction:
    """A share of all steps, as a person would work it out: 0.29 of 100 is 29, which floating point misses."""
    return Fraction(str(share)) * total


def make_schedule(
    sequences: int, micro_batch_size: int, accumulation: int, num_epochs: float, max_steps: int | None
) -> Schedule:
    """The Trainer's arithmetic: the last, smaller batch of an epoch counts, and an epoch ends a step."""
    steps_per_epoch = math.ceil(math.ceil(sequences / micro_batch_size) / accumulation)
    total = max_steps or math.ceil(share_of(steps_per_epoch, num_epochs))
    return Schedule(sequences, micro_batch_size * accumulation, steps_per_epoch, total)


def warmup_steps(total: int, steps: float | None, ratio: float | None) -> int:
    """Steps of warmup: as given, else by Axolotl's rule (3% of all steps, at most 100; never a single one).

    `steps` below 1 are a share, as `ratio` is.
    """
    if steps is not None and 0 < steps < 1:
        steps, ratio = None, steps
    if steps is not None:
        return int(steps)
    share = int(share_of(total, WARMUP_SHARE if ratio is None else ratio))
    derived = share if ratio is not None else min(share, WARMUP_LIMIT)
    return 2 if derived == 1 else derived


def logging_interval(total: int, steps: int | None) -> int:
    """Steps between two reports: as given, else one in 200, at most 10."""
    return steps or max(min(int(share_of(total, LOGGING_SHARE)), LOGGING_LIMIT), 1)


def due_steps(
    schedule: Schedule,
    *,
    every: float | None,
    per_epoch: int | None,
    strategy: Literal["no", "epoch", "steps"] | None,
    default: Literal["no", "epoch"],
) -> frozenset[int]:
    """The steps after which something is due. `every` below 1 is a share of all steps."""
    if every is not None:
        interval = math.ceil(share_of(schedule.total, every)) if every < 1 else int(every)
    elif per_epoch is not None:
        interval = math.ceil(schedule.steps_per_epoch / per_epoch)
    elif (strategy or default) == "epoch":
        interval = schedule.steps_per_epoch
    else:
        return frozenset()
    return frozenset(range(interval, schedule.total + 1, interval))
