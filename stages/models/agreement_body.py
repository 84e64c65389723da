"""How alike two models are in what they say of the next token: of logits, whoever made them."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Agreement:
    """Over `tokens` places, in the mean: KL(reference || model) in nats, and the share with one likeliest token."""

    kl: float
    top1: float
    tokens: int


def divergence(log_p_rv: Tensor, reference_rv: Tensor) -> tuple[Tensor, Tensor]:
    """Of log-probabilities [R, V]: [R] KL(reference || other) in nats as float64, and [R] whether both have the same
    likeliest token.
    """
    kl_r = (reference_rv.exp() * (reference_rv - log_p_rv)).sum(-1).double()
    return kl_r, log_p_rv.argmax(-1) == reference_rv.argmax(-1)


def agreement(logits_rv: Tensor, reference_rv: Tensor) -> Agreement:
    """Of logits [R, V] and those of the model that is compared with, R > 0. Log-probabilities do as well."""
    kl_r, same_r = divergence(logits_rv.float().log_softmax(-1), reference_rv.float().log_softmax(-1))
    return Agreement(float(kl_r.mean()), float(same_r.double().mean()), len(kl_r))
