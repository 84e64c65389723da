"""The losses of online RL and their gradients beside those of TRL's own trainer, on the same tensors."""

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tunemill.stages.training.online.loss import (
    LossSettings,
    LossType,
    Sampled,
    counts_of,
    high_entropy,
    policy_loss,
)
from tunemill.stages.training.online.off_policy_body import sampler_ratio

pytestmark = pytest.mark.slow
LONGEST = 12
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped higher": {"epsilon_high": 0.28},
    "sequence": {"importance_sampling_level": "sequence"},
    "delta": {"delta": 1.5},
    "beta": {"beta": 0.1},
    "beta uncorrected": {"beta": 0.1, "use_bias_correction_kl": False},
    "off-policy mask": {"off_policy_mask_threshold": 0.05},
    "entropy": {"entropy_coef": 0.05},
    "all of it": {
        "importance_sampling_level": "sequence", "beta": 0.1, "off_policy_mask_threshold": 0.05,
        "correction": "sequence_mask", "epsilon_high": 0.28, "delta": 1.5, "clip_max": 1.5,
    },
    "token correction": {"correction": "token_truncate", "clip_max": 1.05},
    "quantile": {"top_entropy_quantile": 0.4},
}  # fmt: skip


def drawn() -> tuple[Sampled, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    now = -torch.rand(4, 6, generator=generator, dtype=torch.float64) * 3

    def near(size: float) -> Tensor:
        return now + size * torch.randn(4, 6, generator=generator, dtype=torch.float64)

    mask = (torch.arange(6) < torch.tensor([[6], [3], [5], [1]])).long()
    advantages = torch.tensor([1.2, -0.7, -1.1, 0.0], dtype=torch.float64)
    old = near(0.3)
    sampler = old + 0.1 * torch.randn(4, 6, generator=generator, dtype=torch.float64)
    entropy = torch.rand(4, 6, generator=generator, dtype=torch.float64)
    return Sampled(mask, advantages, old, sampler, near(0.5)), now, entropy


def of_trl(settings: LossSettings, quantile: float, sampled: Sampled, now: Tensor, entropy: Tensor) -> Tensor:
    """What TRL 1.16 minimizes in a step of one micro batch."""
    from trl import GRPOTrainer

    corrects = settings.correction is not None
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda t: t, reduce=lambda t, **_: t, sync_gradients=True,
        pad_across_processes=lambda t, **_: t,
    )  # fmt: skip
    trainer = SimpleNamespace(
        args=SimpleNamespace(**vars(settings), steps_per_generation=1),
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        aux_loss_enabled=False,
        top_entropy_quantile=quantile,
        off_policy_mask_threshold=settings.off_policy_mask_threshold,
        importance_sampling_level=settings.importance_sampling_level,
        beta=settings.beta,
        loss_type=settings.loss_type,
        epsilon_low=settings.epsilon,
        epsilon_high=settings.high,
        use_vllm=corrects,
        vllm_importance_sampling_correction=corrects,
        current_gradient_accumulation_steps=1,
        max_completion_length=LONGEST,
        _entropy_bonus_enabled=settings.entropy_coef != 0,
        use_adaptive_entropy=False,
        entropy_coef=settings.entropy_coef,
        _metrics={"train": defaultdict(list)},
        get_off_policy_mask=GRPOTrainer.get_off_policy_mask,
        get_gamma_weights=GRPOTrainer.get_gamma_weights,
        _get_per_token_logps_and_entropies=lambda *_args, **_kwargs: (now, entropy, None),
    )
    trainer.get_high_entropy_mask = lambda *args: GRPOTrainer.get_high_entropy_mask(trainer, *args)
    ids = torch.zeros_like(sampled.mask_bt)
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": sampled.mask_bt,
        "advantages": sampled.advantages_b, "old_per_token_logps": sampled.old_log_p_bt,
        "ref_per_token_logps": sampled.reference_log_p_bt,
        "num_items_in_batch": sampled.mask_bt.sum(),
    }  # fmt: skip
    if corrects:
        inputs["sampling_per_token_logps"] = sampled.sampler_log_p_bt
        inputs["importance_sampling_ratio"] = sampler_ratio(
            settings.correction, sampled.old_log_p_bt, sampled.sampler_log_p_bt, sampled.mask_bt,
            settings.clip_min, settings.clip_max,
        )  # fmt: skip
    loss: Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


def ours(settings: LossSettings, quantile: float, sampled: Sampled, now: Tensor, entropy: Tensor) -> Tensor:
    if settings.correction is None:
        sampled = replace(sampled, sampler_log_p_bt=None)
    if quantile < 1:
        sampled = replace(sampled, high_entropy_bt=high_entropy(entropy, sampled.mask_bt, quantile))
    parts, counts = policy_loss(settings, sampled, now, entropy), counts_of(sampled.mask_bt, LONGEST)
    return sum(total / counts[name] for name, total in parts.totals.items())


def test_every_loss_and_its_gradient_are_those_of_trl():
    """One test for all, so that TRL is imported once."""
    sampled, now, entropy = drawn()
    seen = {}
    for loss_type in get_args(LossType):
        for name, asked in VARIANTS.items():
            quantile = asked.get("top_entropy_quantile", 1.0)
            keys = {key: value for key, value in asked.items() if key != "top_entropy_quantile"}
            settings = replace(LossSettings(loss_type=loss_type, correction=None), **keys)
            settings = replace(settings, max_completion_length=LONGEST)
            gradients = []
            for of in (ours, of_trl):
                leaf = now.clone().requires_grad_()
                loss = of(settings, quantile, sampled, leaf, entropy)
                loss.backward()
                gradients.append((loss.detach(), leaf.grad))
            assert torch.allclose(*(one[0] for one in gradients)), (loss_type, name)
            assert torch.allclose(*(one[1] for one in gradients)), (loss_type, name)
            seen[loss_type, name] = gradients[0][0].item()
    # The tensors reach what each variant is about: no two of a loss that reads all of them are equal.
    assert len({round(seen["dapo", name], 9) for name in VARIANTS}) == len(VARIANTS)
