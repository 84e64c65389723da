"""Prompts that are asked again: those that no completion has answered, in place of others of a later round.

A prompt waits from the round on in which none of its completions has a reward above 0. It is asked once more in place
of the last prompts of a later round, the one that has waited longest first, and waits again where that fails too. One
that is answered when its own turn comes waits no longer. (Deferred re-rolls, as Axolotl names them.)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunemill.stages.training.online.plan import Plan

Answered = Mapping[int, bool]
"""Prompts of a round, and whether any of their completions has a reward above 0. Of those left out nothing is known."""


@dataclass(frozen=True)
class Waiting:
    """Prompts that wait, the one that has waited longest first."""

    prompts: tuple[int, ...] = ()

    def heard(self, answered: Answered) -> "Waiting":
        """Behind a round: what failed waits, what was answered does not."""
        failed = [prompt for prompt, is_answered in answered.items() if not is_answered]
        left = [prompt for prompt in self.prompts if not answered.get(prompt, False)]
        return Waiting((*left, *(prompt for prompt in failed if prompt not in left)))

    def put_into(self, prompts: Sequence[int], most: int) -> tuple[list[int], "Waiting"]:
        """The prompts of a round, with up to `most` that have waited in place of its last ones, and who waits on."""
        chosen = [prompt for prompt in self.prompts if prompt not in prompts][: min(most, len(prompts))]
        left = tuple(prompt for prompt in self.prompts if prompt not in chosen)
        return [*prompts[: len(prompts) - len(chosen)], *chosen], Waiting(left)


class Prompts:
    """The prompts of each round. `heard` says of a round, whose prompts it is given, which were answered.

    Round r is put together when what round r - 1 - `ahead` has brought is known. From round `start` on prompts are
    asked again, at most `most` in a round. All follows from the settings and from what was heard.
    """

    def __init__(
        self, plan: Plan, start: int, most: int, ahead: int, heard: Callable[[int, list[int]], Answered]
    ) -> None:
        self._plan, self._start, self._most, self._ahead, self._heard = plan, start, most, ahead, heard
        self._waiting = Waiting()
        self._rounds: list[list[int]] = []
        self._again: list[int] = []

    def of(self, number: int) -> list[int]:
        """Those of this round, one for each of its groups."""
        while len(self._rounds) <= number:
            made = len(self._rounds)
            known = made - 1 - self._ahead
            if known >= 0:
                self._waiting = self._waiting.heard(self._heard(known, self._rounds[known]))
            own = prompts = self._plan.prompts_of(made)
            if made >= self._start:
                prompts, self._waiting = self._waiting.put_into(own, self._most)
            self._rounds.append(prompts)
            self._again.append(sum(prompt not in own for prompt in prompts))
        return self._rounds[number]

    def asked_again(self, number: int) -> int:
        """How many of them stand there in place of others."""
        self.of(number)
        return self._again[number]


def answered(prompts: Sequence[int], rewards_n: npt.NDArray[np.float64]) -> Answered:
    """Of the summed rewards of whole groups, NaN where there is none: nothing is known of a prompt without any."""
    grouped_gk = rewards_n.reshape(len(prompts), -1)
    return {
        prompt: bool(np.nanmax(rewards_k) > 0)
        for prompt, rewards_k in zip(prompts, grouped_gk, strict=True)
        if not np.isnan(rewards_k).all()
    }
