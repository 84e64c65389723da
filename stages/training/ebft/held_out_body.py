"""Held-out documents: at evaluations blocks are drawn in them, and compared with what they have there themselves."""

from collections.abc import Sequence
from typing import Any

import torch

from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.ebft.documents_body import Document
from tunemill.stages.training.ebft.rewards_body import FrozenModel, likeness
from tunemill.stages.training.ebft.strided_body import block_features, drawn
from tunemill.stages.training.online.plan import held_out_seeds


def documents_scored(
    config: EbftConfig, frozen: FrozenModel, documents: Sequence[Document], model: Any
) -> dict[str, float]:
    """Means over the blocks of all documents; a document has the same seeds at every evaluation.

    Raises UserError where features are no numbers.
    """
    totals = dict.fromkeys((*config.reward_names, "cfm_loss"), 0.0)
    blocks = sum(len(one.starts) for one in documents)
    for document in documents:
        count = len(document.starts)
        seeds = held_out_seeds(config.seed, document.row, count * config.n_samples_per_prompt)
        seeds_an = [seeds[block::count] for block in range(count)]
        blocks_nag, _ = drawn(config, model, document, seeds_an)
        with frozen.opened() as (plain, device):
            sequences = [document.sequence(one) for one in (*blocks_nag.tolist(), document.own_blocks)]
            features_and = block_features(config, plain, document, torch.tensor(sequences, device=device))
            found = likeness(config, features_and[:, :-1], features_and[:, -1], 0)
        for name, values in zip(totals, found, strict=True):
            totals[name] += float(values.double().sum()) / (values.numel() / count)
    means = {name: total / blocks for name, total in totals.items()}
    rewards = {name: means[name] for name in config.reward_names}
    reward = sum(weight * one for weight, one in zip(config.weights, rewards.values(), strict=True))
    named = {f"rewards/{name}": value for name, value in rewards.items()}
    return {
        "eval_reward": reward,
        **{f"eval_{name}": value for name, value in named.items()},
        "eval_logged/cfm_loss": means["cfm_loss"],
    }
