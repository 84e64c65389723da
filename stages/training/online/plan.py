"""Which prompts a round samples, and what each step of it learns from: pure functions of the settings.

A round samples `num_generations` completions of each of its prompts, and is then learned from `num_iterations` times,
a step at a time. An epoch has as many whole rounds as there are prompts for; the others wait for another epoch, whose
order is another one.
"""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """Rounds and steps over so many `prompts`. `per_step` and `per_round` count completions."""

    prompts: int
    num_generations: int
    per_step: int
    per_round: int
    num_iterations: int
    seed: int
    keep_order: bool = False

    @property
    def groups(self) -> int:
        """Groups of a round, each of one prompt."""
        return self.per_round // self.num_generations

    @property
    def steps_of_round(self) -> int:
        """Steps that are taken with the rollouts of one round."""
        return self.per_round // self.per_step * self.num_iterations

    @property
    def rounds_of_epoch(self) -> int:
        """Whole rounds that the prompts are enough for."""
        return self.prompts // self.groups

    @property
    def examples(self) -> int:
        """Completions that an epoch learns from, each as often as it is learned from."""
        return self.rounds_of_epoch * self.steps_of_round * self.per_step

    def round_of(self, step: int) -> int:
        """The round that the step behind so many steps learns from; both from 0."""
        return step // self.steps_of_round

    def slots(self, step: int) -> range:
        """Which rollouts of its round that step learns from."""
        first = step % (self.per_round // self.per_step) * self.per_step
        return range(first, first + self.per_step)

    def prompts_of(self, number: int) -> list[int]:
        """The prompts of a round, one for each of its groups."""
        epoch, place = divmod(number, self.rounds_of_epoch)
        first = place * self.groups
        return self._order(epoch)[first : first + self.groups]

    def _order(self, epoch: int) -> list[int]:
        """As everywhere: the first epoch reads the stored order, which is shuffled already."""
        if epoch == 0 or self.keep_order:
            return list(range(self.prompts))
        # `check` reads the plan, and needs no numpy.
        import numpy as np

        numbers: list[int] = np.random.default_rng([self.seed, epoch]).permutation(self.prompts).tolist()
        return numbers

    def seeds(self, number: int, group: int) -> list[int]:
        """A seed for each completion of a group, that no other completion of the training has."""
        return [_seed(f"{self.seed} {number} {group} {place}") for place in range(self.num_generations)]


def held_out_seeds(seed: int, row: int, count: int) -> list[int]:
    """A seed for each completion of a held-out prompt, the same at every evaluation."""
    return [_seed(f"{seed} held out {row} {place}") for place in range(count)]


def _seed(text: str) -> int:
    """63 bits: close numbers give streams that have nothing to do with each other."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
