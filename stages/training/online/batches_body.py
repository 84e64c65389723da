"""Completions as batches, and the loss of one.

B: completions of a micro batch, L: tokens of the longest prompt with its completion, T: of the longest completion.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.method import Batch, Counts, LossParts
from tunemill.stages.training.online.loss import LossSettings, Sampled, counts_of, high_entropy, policy_loss
from tunemill.stages.training.online.policy_body import completion_log_p
from tunemill.stages.training.online.policy_keys import PolicyKeys
from tunemill.stages.training.online.rollouts import Rollout

# What is shown of each completion of a batch stands in it under these names; NaN where there is nothing.
FIGURE = "figure/"
# What the model was asked of: not the micro batches that are left out because nothing in them is better or worse.
SEEN = "seen_"
STALENESS = f"{FIGURE}staleness"
# Tokens of the policy that learns from them, and of an older one.
FRESH, STALE = "fresh_tokens", "stale_tokens"
Figures = Mapping[str, npt.NDArray[np.float64]]


def sequences(rollouts: Sequence[Rollout], device: Any) -> Batch:
    """`input_ids` and `attention_mask` [B, L], `prompt_tokens` [B], and `mask` [B, T] of what the model said."""
    rows = [(*one.prompt_ids, *one.completion.ids) for one in rollouts]
    return {
        "input_ids": _padded(rows, torch.long, device),
        "attention_mask": _padded([[1] * len(row) for row in rows], torch.long, device),
        "prompt_tokens": torch.tensor([len(one.prompt_ids) for one in rollouts], device=device),
        "mask": _padded([[float(own) for own in one.mask] for one in rollouts], torch.float32, device),
    }


def batch_of(
    config: PolicyKeys,
    rollouts: Sequence[Rollout],
    advantages_b: Sequence[float],
    figures: Figures,
    device: Any,
) -> Batch:
    """A micro batch: its sequences, how good they are, what was said of them when they were sampled."""
    batch = sequences(rollouts, device)
    if config.mask_truncated_completions:
        whole_b = torch.tensor([not one.truncated for one in rollouts], device=device)
        batch["mask"] = batch["mask"] * whole_b[:, None]
    batch["advantages"] = torch.tensor(advantages_b, dtype=torch.float32, device=device)
    said: dict[str, list[tuple[float, ...] | None]] = {
        "sampler_log_p": [one.completion.log_p for one in rollouts],
        "policy_log_p": [one.policy_log_p for one in rollouts],
        "reference_log_p": [one.reference_log_p for one in rollouts],
    }
    for name, rows in said.items():
        if any(row is not None for row in rows):
            unsaid = [(math.nan,) * len(one.completion.ids) for one in rollouts]
            filled = [none if row is None else row for row, none in zip(rows, unsaid, strict=True)]
            batch[name] = _padded(filled, torch.float32, device)
    batch |= {f"{FIGURE}{name}": torch.tensor(values) for name, values in figures.items()}
    batch["stale"] = batch.get(STALENESS, torch.zeros(len(rollouts))) > 0
    batch["skipped"] = config.skip_zero_advantage_batches and says_nothing(config, batch)
    return batch


def for_step(batches: Sequence[Batch]) -> list[Batch]:
    """The micro batches of this process as those of a step: the loss of one of which all is masked is 0, not 0 / 0.

    Among several processes none skips its last one, by whose backward pass they exchange gradients.
    """
    learned_from = sum(int(batch["mask"].any()) for batch in batches)
    is_empty = not ranks.summed({"learned_from": learned_from})["learned_from"]
    last = len(batches) - 1
    return [
        {
            **batch,
            "alone": is_empty and place == 0 and ranks.is_first(),
            "skipped": batch["skipped"] and (place < last or ranks.count() == 1),
        }
        for place, batch in enumerate(batches)
    ]


def says_nothing(config: PolicyKeys, batch: Batch) -> bool:
    """Whether the loss of a micro batch is 0 whatever the model says."""
    is_level = not bool((batch["advantages"][:, None] * batch["mask"]).any())
    return is_level and not config.beta and not config.entropy_coef


def counts(config: PolicyKeys, batch: Batch) -> Counts:
    """Completions, their tokens, the tokens that they might have had; what the model is asked of; each figure."""
    of_loss = counts_of(batch["mask"], config.max_completion_length)
    fresh, stale = (0, 0) if batch["skipped"] else (int(one.sum()) for one in by_age(batch))
    seen = {FRESH: fresh, STALE: stale} | {
        f"{SEEN}{name}": 0 if batch["skipped"] else number for name, number in of_loss.items()
    }
    # A step of which all is masked has the loss 0, and not 0 / 0.
    of_loss = {name: max(number, int(batch["alone"])) for name, number in of_loss.items()}
    shown = {name: int((~values.isnan()).sum()) for name, values in batch.items() if name.startswith(FIGURE)}
    return {**of_loss, **seen, **shown}


def by_age(batch: Batch) -> tuple[Tensor, Tensor]:
    """[B, T] which tokens are of the policy that learns from them, and which of an older one."""
    stale_b1 = batch["stale"].to(batch["mask"])[:, None]
    return batch["mask"] * (1 - stale_b1), batch["mask"] * stale_b1


def settings_of(config: PolicyKeys) -> LossSettings:
    """What the keys ask of the loss."""
    return LossSettings(
        loss_type=config.loss_type,
        max_completion_length=config.max_completion_length,
        epsilon=config.epsilon,
        epsilon_high=config.epsilon_high,
        delta=config.delta,
        importance_sampling_level=config.importance_sampling_level,
        beta=config.beta,
        use_bias_correction_kl=config.use_bias_correction_kl,
        off_policy_mask_threshold=config.off_policy_mask_threshold,
        correction=config.correction,
        clip_min=config.correction_bounds[0],
        clip_max=config.correction_bounds[1],
        entropy_coef=config.entropy_coef,
    )


def loss_of(config: PolicyKeys, model: Any, batch: Batch) -> LossParts:
    """The loss of a micro batch as sums, and what is shown of it."""
    shown = {
        name.removeprefix(FIGURE): (values.nan_to_num().sum(), name)
        for name, values in batch.items()
        if name.startswith(FIGURE)
    }
    if batch["skipped"]:
        nothing = sum(p.sum() * 0.0 for p in model.parameters() if p.requires_grad)
        return LossParts({"sequences": nothing}, shown)
    settings = settings_of(config)
    log_p_bt, entropy_bt = completion_log_p(
        model, batch, config.temperature, with_gradient_of_entropy=bool(config.entropy_coef)
    )
    chosen_bt = None
    if config.top_entropy_quantile < 1:
        chosen_bt = high_entropy(entropy_bt, batch["mask"], config.top_entropy_quantile)
    old_log_p_bt = log_p_bt.detach()
    if "policy_log_p" in batch:
        # Of what is learned from again it may be said, and of the rest not.
        said_bt = batch["policy_log_p"]
        old_log_p_bt = torch.where(said_bt.isnan(), old_log_p_bt, said_bt)
    sampled = Sampled(
        mask_bt=batch["mask"],
        advantages_b=batch["advantages"],
        old_log_p_bt=old_log_p_bt,
        sampler_log_p_bt=batch["sampler_log_p"],
        reference_log_p_bt=batch.get("reference_log_p"),
        high_entropy_bt=chosen_bt,
    )
    parts = policy_loss(settings, sampled, log_p_bt, entropy_bt)
    seen = {name: (value, f"{SEEN}{counted}") for name, (value, counted) in parts.metrics.items()}
    # What rounding makes is one thing, and what the policy has learned since is another.
    apart_bt = (old_log_p_bt - batch["sampler_log_p"]).abs().nan_to_num()
    fresh_bt, stale_bt = by_age(batch)
    seen["mismatch"] = ((apart_bt * fresh_bt).sum(), FRESH)
    seen["policy_moved"] = ((apart_bt * stale_bt).sum(), STALE)
    return LossParts(parts.totals, {**shown, **seen})


def _padded(rows: Sequence[Sequence[float]], kind: torch.dtype, device: Any) -> Tensor:
    """Rows of numbers as a tensor, zeros behind the shorter ones."""
    made = torch.zeros((len(rows), max(map(len, rows))), dtype=kind)
    for place, row in enumerate(rows):
        made[place, : len(row)] = torch.tensor(row, dtype=kind)
    return made.to(device)
