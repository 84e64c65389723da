"""Groups that are learned from again, in place of groups of which nothing is learned.

A group whose completions are all as good has advantages of 0. In its place stands a group of an earlier round that
differed: of those that are held the one with the most to learn from, the sum of |advantage| times the deviation of
its rewards (the priority of TRL's replay buffer), the newer one where two have as much. A group is learned from again
once: then it is held no longer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.training.online.advantages import Advantages

# Rounding makes the mean of equal rewards another number than they are.
LEAST = 1e-9


@dataclass(frozen=True)
class Held:
    """A group of a round, both from 0, and how much there is to learn from it."""

    round: int
    group: int
    signal: float

    @property
    def rank(self) -> tuple[float, int, int]:
        """The higher, the sooner it is learned from again."""
        return self.signal, self.round, -self.group


@dataclass(frozen=True)
class Buffer:
    """The groups that are held, the one that is learned from next first."""

    held: tuple[Held, ...] = ()

    def since(self, oldest: int) -> "Buffer":
        """Without what was sampled before this round."""
        return Buffer(tuple(one for one in self.held if one.round >= oldest))

    def fill(self, level: Sequence[int]) -> tuple[dict[int, Held], "Buffer"]:
        """What stands in place of these groups, as far as there is something, and what is held on."""
        chosen = dict(zip(level, self.held, strict=False))
        return chosen, Buffer(self.held[len(chosen) :])

    def keep(self, groups: Iterable[Held], size: int) -> "Buffer":
        """With these groups, but no more than `size` in all: those with the most to learn from."""
        ranked = sorted((*self.held, *groups), key=lambda one: one.rank, reverse=True)
        return Buffer(tuple(ranked[:size]))


def signals(number: int, found: Advantages, size: int) -> tuple[list[int], list[Held]]:
    """Of the groups of a round, of `size` completions each: those of which nothing is learned, and the others."""
    values_gk = found.values_n.reshape(-1, size)
    spread_g = found.spread_n.reshape(-1, size)[:, 0]
    signal_g = np.abs(values_gk).sum(axis=1) * spread_g
    level = [group for group, signal in enumerate(signal_g) if signal <= LEAST]
    held = [Held(number, group, float(signal)) for group, signal in enumerate(signal_g) if signal > LEAST]
    return level, held


class Replays:
    """What stands in place of the groups of each round of which nothing is learned.

    `found` says of a round which those are, and what the others are worth; `oldest` the first round that is young
    enough for it. All follows from the settings and from that.
    """

    def __init__(
        self, size: int, oldest: Callable[[int], int], found: Callable[[int], tuple[list[int], list[Held]]]
    ) -> None:
        self._size, self._oldest, self._found = size, oldest, found
        self._buffer = Buffer()
        self._chosen: list[dict[int, Held]] = []

    def of(self, number: int) -> dict[int, Held]:
        """The groups of a round that others stand in place of."""
        while len(self._chosen) <= number:
            made = len(self._chosen)
            level, held = self._found(made)
            chosen, left = self._buffer.since(self._oldest(made)).fill(level)
            self._buffer = left.keep(held, self._size)
            self._chosen.append(chosen)
        return self._chosen[number]
