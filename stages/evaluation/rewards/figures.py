"""Figures of a reward model on held-out pairs, from its scores alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean


@dataclass(frozen=True)
class PairScore:
    """The scores of the better conversation of a pair and of the other one."""

    chosen: float
    rejected: float

    @property
    def margin(self) -> float:
        """By how much the better one is scored higher."""
        return self.chosen - self.rejected

    @property
    def is_right(self) -> bool:
        """Whether it is scored higher at all; equal scores tell nothing apart."""
        return self.margin > 0

    @property
    def loss(self) -> float:
        """-log sigmoid of the margin (nats), without overflow at either end."""
        return max(-self.margin, 0.0) + math.log1p(math.exp(-abs(self.margin)))


def figures_of(scores: Sequence[PairScore]) -> dict[str, float | int]:
    """Means over pairs, and the lowest and the highest score of all."""
    both = [value for score in scores for value in (score.chosen, score.rejected)]
    return {
        "eval_loss": fmean(score.loss for score in scores),
        "accuracy": fmean(score.is_right for score in scores),
        "margin": fmean(score.margin for score in scores),
        "mean_reward": fmean(both),
        "min_reward": min(both),
        "max_reward": max(both),
        "rows": len(scores),
    }
