"""Figures of a model on held-out preferences, from what it and the reference say of each answer.

With s the summed log probability of an answer under the model and r that under the reference, the reward of an answer
is s - r: what DPO and KTO multiply by beta. Where two values are equal, the comparison counts one half, so that a model
beside itself has a reward accuracy of exactly .5.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tunemill.stages.evaluation.perplexity import perplexity_of


@dataclass(frozen=True)
class AnswerScore:
    """Of one answer: its tokens, the sums of their log probabilities (nats), and of the divergence at each of them."""

    tokens: int
    log_p: float
    reference_log_p: float
    divergence: float

    @property
    def reward(self) -> float:
        """What the answer has gained on the reference: a logarithm of the ratio of both probabilities."""
        return self.log_p - self.reference_log_p

    @property
    def mean(self) -> float:
        """Mean log probability of a token."""
        return self.log_p / self.tokens


def figures_of_pairs(chosen: Sequence[AnswerScore], rejected: Sequence[AnswerScore]) -> dict[str, float]:
    """The figures of pairs of answers to the same prompts."""
    return {
        **_compared("accuracy", "margin", [s.log_p for s in chosen], [s.log_p for s in rejected]),
        **_compared(
            "accuracy_per_token", "margin_per_token", [s.mean for s in chosen], [s.mean for s in rejected]
        ),
        **_compared(
            "reward_accuracy", "reward_margin", [s.reward for s in chosen], [s.reward for s in rejected]
        ),
        "reward_chosen": _mean([s.reward for s in chosen]),
        "reward_rejected": _mean([s.reward for s in rejected]),
        "kl": _divergence([*chosen, *rejected]),
        "perplexity": _perplexity(chosen),
    }


def figures_of_pair(chosen: AnswerScore, rejected: AnswerScore) -> dict[str, float]:
    """The figures of one pair whose means are those of all pairs, and its divergence: the mean over `kl_tokens`."""
    found = figures_of_pairs([chosen], [rejected])
    del found["perplexity"]
    return {**found, "kl_tokens": chosen.tokens + rejected.tokens}


def figures_of_judgement(score: AnswerScore, *, desirable: bool) -> dict[str, float | None]:
    """The same of one judged answer: its reward under the name of its kind, and None under the other."""
    return {
        "reward_desirable": score.reward if desirable else None,
        "reward_undesirable": None if desirable else score.reward,
        "kl": _divergence([score]),
        "kl_tokens": score.tokens,
    }


def figures_of_judged(
    desirable: Sequence[AnswerScore], undesirable: Sequence[AnswerScore]
) -> dict[str, float]:
    """The figures of answers that are each judged by themselves; those that need both kinds only where there are both.

    Answers to different prompts are compared by their rewards: log probabilities would say which prompt is easier.
    `reward_accuracy` is the share of all pairs of a desirable and an undesirable answer of which the desirable one has
    the higher reward: the area under the ROC curve (Hanley and McNeil 1982), which needs no threshold.
    """
    found: dict[str, float] = {}
    kinds = {"desirable": desirable, "undesirable": undesirable}
    for name, scores in kinds.items():
        if scores:
            found[f"reward_{name}"] = _mean([s.reward for s in scores])
    if desirable and undesirable:
        found["reward_accuracy"] = ordered_rightly(
            [s.reward for s in desirable], [s.reward for s in undesirable]
        )
        found["reward_margin"] = found["reward_desirable"] - found["reward_undesirable"]
    found["kl"] = _divergence([*desirable, *undesirable])
    if desirable:
        found["perplexity"] = _perplexity(desirable)
    return found


def ordered_rightly(better: Sequence[float], worse: Sequence[float]) -> float:
    """The share of all pairs of one value of each in which the better one is higher; equal ones count one half."""
    ordered = np.sort(np.asarray(worse))
    below = np.searchsorted(ordered, better, side="left") + np.searchsorted(ordered, better, side="right")
    return float(below.mean() / (2 * len(ordered)))


def _compared(
    accuracy: str, margin: str, better: Sequence[float], worse: Sequence[float]
) -> dict[str, float]:
    margins = [one - other for one, other in zip(better, worse, strict=True)]
    right = sum((difference > 0) + 0.5 * (difference == 0) for difference in margins)
    return {accuracy: right / len(margins), margin: _mean(margins)}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _divergence(scores: Sequence[AnswerScore]) -> float:
    """The mean over the tokens of all answers."""
    return math.fsum(s.divergence for s in scores) / sum(s.tokens for s in scores)


def _perplexity(scores: Sequence[AnswerScore]) -> float:
    mean = math.fsum(s.log_p for s in scores) / sum(s.tokens for s in scores)
    return perplexity_of(-mean)
