"""The examples of an online training: places that completions are put into just before they are learned from."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tunemill.stages.training.method import Batch
from tunemill.stages.training.online.plan import Plan
from tunemill.stages.training.online.rollouts import Rollout
from tunemill.stages.training.order_body import Examples


class Slots(Examples):
    """A place for each completion that an epoch learns from. What is in it is known once its step is made."""

    def __init__(self, plan: Plan, file: Path) -> None:
        super().__init__(
            lambda place: place, np.ones(plan.examples, np.int64), plan.seed, keep_order=True, file=file
        )
        self._plan = plan
        self._prompt_rows = np.full(plan.examples, -1, np.int64)

    def fill(self, step: int, rollouts: Sequence[Rollout]) -> None:
        """The step behind so many others learns from these."""
        first = step * self._plan.per_step % len(self)
        for place, one in enumerate(rollouts, first):
            self.lengths[place] = len(one.prompt_ids) + len(one.completion.ids)
            self._prompt_rows[place] = one.prompt_row

    def places_in_step(self, step: int, numbers: Sequence[int]) -> list[int]:
        """Which of the completions of that step, from 0, these examples are."""
        first = step * self._plan.per_step % len(self)
        return [number - first for number in numbers]

    def rows(self, number: int) -> list[int]:
        """The prompt that an example answers."""
        row = int(self._prompt_rows[number])
        return [] if row < 0 else [row]


def places(numbers: Sequence[int]) -> Batch:
    """A batch of places."""
    return {"slots": torch.tensor(numbers)}
