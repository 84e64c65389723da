"""The losses of online RL: sampled tokens made likelier or less likely by how good their completion was.

With A the advantage of a completion, r = p / p_old the ratio of a token's probability now to what it was when the round
began (r_s its geometric mean over the completion, with `importance_sampling_level: sequence`), l and h the bounds
`epsilon` and `epsilon_high`, and sg(.) without gradient, the loss of a token is

    grpo, bnpo, dr_grpo, dapo, luspo    -min(r A, clip(r, 1 - l, 1 + h) A), r below `delta`
    cispo                               -sg(min(r, h)) A log p
    sapo                                -4/t s(t (r - 1)) A, s the sigmoid, t of the sign of A
    vespo                               -sg(phi(w)) A log p, w the product of r over the completion,
                                        phi(w) = e^n w^k e^(-n w), k and n of the sign of A

What differs beside it is what the sum over tokens is divided by (`COUNTED_IN`): `grpo` and `sapo` by the tokens of each
completion and then by completions, `luspo` by completions alone, `dr_grpo` by the longest completion that is allowed
times completions, the others by tokens. All are sums here, so that a step has one loss however it is cut into micro
batches; TRL's `bnpo` is a mean over micro batches of means, which is the same where a step has one.

Shapes: B completions, T tokens of the longest. Sources, with GRPO (Shao et al. 2024, arXiv 2402.03300, eq. 3): Dr. GRPO
(Liu et al. 2025, arXiv 2503.20783), DAPO (Yu et al. 2025, arXiv 2503.14476, eq. 8), CISPO (MiniMax 2025, arXiv
2506.13585, eq. 4), SAPO (Gao et al. 2025, arXiv 2511.20347), GSPO (Zheng et al. 2025, arXiv 2507.18071, eq. 7), `delta`
(INTELLECT-2, Prime Intellect 2025, arXiv 2505.07291), and TRL 1.16 for BNPO, LUSPO and VESPO.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tunemill.stages.training.method import LossParts
from tunemill.stages.training.online.off_policy_body import keeps, sampler_ratio

LossType = Literal["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]

SEQUENCES, TOKENS, SLOTS = "sequences", "tokens", "slots"
"""What is counted: completions, their tokens in the loss, and completions times the longest one allowed."""

COUNTED_IN: dict[str, str] = {
    "grpo": SEQUENCES,
    "bnpo": TOKENS,
    "dr_grpo": SLOTS,
    "dapo": TOKENS,
    "cispo": TOKENS,
    "sapo": SEQUENCES,
    "luspo": SEQUENCES,
    "vespo": TOKENS,
}
PER_TOKEN_FIRST = frozenset({"grpo", "sapo"})
# Beyond them exp() would say nothing: of log ratios.
LOWEST, HIGHEST = math.log(1e-8), 20.0


@dataclass(frozen=True)
class LossSettings:
    """What a loss asks, by TRL's names. `correction` is `vllm_importance_sampling_mode`, None where it is off."""

    loss_type: LossType = "dapo"
    max_completion_length: int = 256
    epsilon: float = 0.2
    epsilon_high: float | None = None
    delta: float | None = None
    importance_sampling_level: Literal["token", "sequence"] = "token"
    beta: float = 0.0
    use_bias_correction_kl: bool = True
    off_policy_mask_threshold: float | None = None
    correction: str | None = "sequence_mask"
    clip_min: float | None = None
    clip_max: float | None = 3.0
    entropy_coef: float = 0.0
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    vespo_k_pos: float = 2.0
    vespo_lambda_pos: float = 3.0
    vespo_k_neg: float = 3.0
    vespo_lambda_neg: float = 2.0

    @property
    def high(self) -> float:
        """The upper bound, which is the lower one where none is given."""
        return self.epsilon if self.epsilon_high is None else self.epsilon_high


@dataclass(frozen=True)
class Sampled:
    """B completions that a policy has sampled, padded to T tokens.

    `mask_bt`: 1 where a token is in the loss. `advantages_b`: how much better than its group each completion was.
    Log probabilities of the tokens: `old_log_p_bt` by the trainer when the round began, None where that is now;
    `sampler_log_p_bt` by the engine that sampled them, None where that is the trainer itself; `reference_log_p_bt` by
    the frozen model, with `beta`. `high_entropy_bt`: the tokens that the policy loss is over, None: all.
    """

    mask_bt: Tensor
    advantages_b: Tensor
    old_log_p_bt: Tensor | None = None
    sampler_log_p_bt: Tensor | None = None
    reference_log_p_bt: Tensor | None = None
    high_entropy_bt: Tensor | None = None


@dataclass(frozen=True)
class Ratios:
    """How far the policy has moved: log p and log r of each token, and r as `importance_sampling_level` says.

    `ratio_bx` has T columns, or one for whole completions. `sampler_bx`: p_old / p of the engine, corrected.
    """

    log_p_bt: Tensor
    log_ratio_bt: Tensor
    ratio_bx: Tensor
    sampler_bx: Tensor | None


TokenLoss = Callable[[LossSettings, Ratios, Tensor, Tensor], Tensor]
"""[B, T] or [B, 1] of settings, ratios, advantages [B, 1] and the mask [B, T]."""


def policy_loss(settings: LossSettings, sampled: Sampled, log_p_bt: Tensor, entropy_bt: Tensor) -> LossParts:
    """The loss of a micro batch as sums.

    `log_p_bt` has the gradient; `entropy_bt` is that of the policy at each token, in nats.
    """
    mask_bt = sampled.mask_bt.to(log_p_bt.dtype)
    advantages_b1 = sampled.advantages_b.to(log_p_bt.dtype)[:, None]
    ratios = ratios_of(settings, sampled, log_p_bt, mask_bt)
    loss_bx = LOSSES[settings.loss_type](settings, ratios, advantages_b1, mask_bt)
    figures = _figures(settings, sampled, ratios, advantages_b1, mask_bt, entropy_bt)
    if settings.off_policy_mask_threshold is not None:
        keep_b1 = _kept(settings.off_policy_mask_threshold, sampled, ratios, advantages_b1, mask_bt)
        loss_bx = loss_bx * keep_b1
        figures["off_policy_masked"] = (len(keep_b1) - keep_b1.sum(), SEQUENCES)
    if sampled.high_entropy_bt is not None:
        loss_bx = loss_bx * sampled.high_entropy_bt.to(loss_bx.dtype)
    if ratios.sampler_bx is not None and settings.loss_type != "vespo":
        loss_bx = loss_bx * ratios.sampler_bx
    if settings.beta:
        kl_bt = _kl(settings, sampled, ratios)
        loss_bx = loss_bx + settings.beta * kl_bt
        figures["kl"] = ((kl_bt.detach() * mask_bt).sum(), TOKENS)
    counted = COUNTED_IN[settings.loss_type]
    totals = {counted: _summed(settings.loss_type, loss_bx, mask_bt)}
    if settings.entropy_coef:
        bonus = -settings.entropy_coef * (entropy_bt * mask_bt).sum()
        totals[TOKENS] = totals[TOKENS] + bonus if counted == TOKENS else bonus
    return LossParts(totals, figures)


def counts_of(mask_bt: Tensor, longest: int) -> dict[str, int]:
    """How much of everything a micro batch has; `longest`: tokens that a completion may have."""
    completions = len(mask_bt)
    return {SEQUENCES: completions, TOKENS: int(mask_bt.sum()), SLOTS: completions * longest}


def ratios_of(settings: LossSettings, sampled: Sampled, log_p_bt: Tensor, mask_bt: Tensor) -> Ratios:
    """How far the policy has moved since the tokens were sampled, by token or by completion."""
    old_log_p_bt = log_p_bt.detach() if sampled.old_log_p_bt is None else sampled.old_log_p_bt
    log_ratio_bt = log_p_bt - old_log_p_bt
    log_weight_bx = log_ratio_bt
    if settings.importance_sampling_level == "sequence":
        log_weight_bx = (log_ratio_bt * mask_bt).sum(-1, keepdim=True) / _tokens_b1(mask_bt)
    sampler_bx = None
    if sampled.sampler_log_p_bt is not None and settings.correction is not None:
        sampler_bx = sampler_ratio(
            settings.correction,
            old_log_p_bt,
            sampled.sampler_log_p_bt,
            mask_bt,
            settings.clip_min,
            settings.clip_max,
        )
    return Ratios(log_p_bt, log_ratio_bt, log_weight_bx.exp(), sampler_bx)


def high_entropy(entropy_bt: Tensor, mask_bt: Tensor, share: float) -> Tensor:
    """[B, T]: whether a token is among this share of those with the highest entropy (Wang et al. 2025, 2506.01939)."""
    present = mask_bt.bool()
    if not present.any():
        return torch.zeros_like(present)
    least = torch.quantile(entropy_bt[present].float(), 1 - share)
    return (entropy_bt >= least) & present


def _clipped(settings: LossSettings, ratios: Ratios, advantages_b1: Tensor, _mask_bt: Tensor) -> Tensor:
    bounded_bx = ratios.ratio_bx.clamp(1 - settings.epsilon, 1 + settings.high)
    ratio_bx = ratios.ratio_bx if settings.delta is None else ratios.ratio_bx.clamp(max=settings.delta)
    return -torch.min(ratio_bx * advantages_b1, bounded_bx * advantages_b1)


def _cispo(settings: LossSettings, ratios: Ratios, advantages_b1: Tensor, _mask_bt: Tensor) -> Tensor:
    return -ratios.ratio_bx.clamp(max=settings.high).detach() * advantages_b1 * ratios.log_p_bt


def _sapo(settings: LossSettings, ratios: Ratios, advantages_b1: Tensor, _mask_bt: Tensor) -> Tensor:
    temperature_b1 = torch.where(
        advantages_b1 > 0, settings.sapo_temperature_pos, settings.sapo_temperature_neg
    )
    return -(temperature_b1 * (ratios.ratio_bx - 1)).sigmoid() * 4 / temperature_b1 * advantages_b1


def _vespo(settings: LossSettings, ratios: Ratios, advantages_b1: Tensor, mask_bt: Tensor) -> Tensor:
    phi_b1 = gamma_weight(settings, ratios, advantages_b1, mask_bt)
    return -phi_b1 * advantages_b1 * ratios.log_p_bt


def gamma_weight(settings: LossSettings, ratios: Ratios, advantages_b1: Tensor, mask_bt: Tensor) -> Tensor:
    """[B, 1] without gradient: phi(w) = e^n w^k e^(-n w), which is 1 where the policy has not moved."""
    log_w_b1 = (ratios.log_ratio_bt.detach().clamp(-HIGHEST, HIGHEST) * mask_bt).sum(-1, keepdim=True)
    if ratios.sampler_bx is not None:
        log_w_b1 = log_w_b1 + ratios.sampler_bx.log().clamp(LOWEST, HIGHEST).sum(-1, keepdim=True)
    log_w_b1 = log_w_b1.clamp(LOWEST, HIGHEST)
    better_b1 = advantages_b1 >= 0
    k_b1 = torch.where(better_b1, settings.vespo_k_pos, settings.vespo_k_neg)
    n_b1 = torch.where(better_b1, settings.vespo_lambda_pos, settings.vespo_lambda_neg).clamp(min=1e-4)
    phi_b1 = (n_b1 + k_b1 * log_w_b1 - n_b1 * log_w_b1.exp()).exp()
    return phi_b1.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


LOSSES: dict[str, TokenLoss] = {
    "grpo": _clipped,
    "bnpo": _clipped,
    "dr_grpo": _clipped,
    "dapo": _clipped,
    "luspo": _clipped,
    "cispo": _cispo,
    "sapo": _sapo,
    "vespo": _vespo,
}


def _summed(loss_type: LossType, loss_bx: Tensor, mask_bt: Tensor) -> Tensor:
    loss_bt = loss_bx * mask_bt
    return (loss_bt / _tokens_b1(mask_bt)).sum() if loss_type in PER_TOKEN_FIRST else loss_bt.sum()


def _tokens_b1(mask_bt: Tensor) -> Tensor:
    return mask_bt.sum(-1, keepdim=True).clamp(min=1)


def _kl(settings: LossSettings, sampled: Sampled, ratios: Ratios) -> Tensor:
    """The estimate k3 of KL(policy, reference) (Schulman 2020), weighted by r where its bias is corrected."""
    assert sampled.reference_log_p_bt is not None, "beta asks for a reference"
    log_q_bt = sampled.reference_log_p_bt - ratios.log_p_bt
    kl_bt = log_q_bt.exp() - log_q_bt - 1
    return kl_bt * ratios.ratio_bx if settings.use_bias_correction_kl else kl_bt


def _kept(
    threshold: float, sampled: Sampled, ratios: Ratios, advantages_b1: Tensor, mask_bt: Tensor
) -> Tensor:
    log_p_bt = ratios.log_p_bt.detach()
    sampler_log_p_bt = sampled.sampler_log_p_bt
    if sampler_log_p_bt is None:
        sampler_log_p_bt = log_p_bt if sampled.old_log_p_bt is None else sampled.old_log_p_bt
    return keeps(threshold, log_p_bt, sampler_log_p_bt, advantages_b1, mask_bt)


def _figures(
    settings: LossSettings,
    sampled: Sampled,
    ratios: Ratios,
    advantages_b1: Tensor,
    mask_bt: Tensor,
    entropy_bt: Tensor,
) -> dict[str, tuple[Tensor, str]]:
    """What is shown: entropy, the share of tokens at a bound, and how far the engine was from the trainer."""
    found = {"entropy": ((entropy_bt.detach() * mask_bt).sum(), TOKENS)}
    ratio_bx = ratios.ratio_bx.detach()
    of_sequences = ratio_bx.shape[-1] == 1 and mask_bt.shape[-1] != 1
    weight, counted = (1.0, SEQUENCES) if of_sequences else (mask_bt, TOKENS)
    if LOSSES[settings.loss_type] is _clipped:
        low_bx = (ratio_bx < 1 - settings.epsilon) & (advantages_b1 < 0)
        high_bx = (ratio_bx > 1 + settings.high) & (advantages_b1 > 0)
        found["clip_fraction_low"] = ((low_bx * weight).sum(), counted)
        found["clip_fraction_high"] = ((high_bx * weight).sum(), counted)
    elif settings.loss_type == "cispo":
        high_bx = (ratio_bx > settings.high) & (advantages_b1 > 0)
        found["clip_fraction_high"] = ((high_bx * weight).sum(), counted)
    if sampled.sampler_log_p_bt is not None and sampled.old_log_p_bt is not None:
        apart_bt = (sampled.old_log_p_bt - sampled.sampler_log_p_bt).abs().nan_to_num() * mask_bt
        found["mismatch"] = (apart_bt.sum(), TOKENS)
    if ratios.sampler_bx is not None:
        of_sequences = ratios.sampler_bx.shape[-1] == 1
        none_bx = (ratios.sampler_bx == 0) * (1.0 if of_sequences else mask_bt)
        found["correction_masked"] = (none_bx.sum(), SEQUENCES if of_sequences else TOKENS)
    return found
