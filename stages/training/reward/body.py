"""Reward models: a head that scores sequences, and pairs of conversations of which one is better."""

from functools import partial
from typing import Any

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.errors import RowError
from tunemill.stages.models.rewards_body import RewardPairs, collate_rewards, padding_of, rewards_of
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Batch, LossParts, Method, OwnLoss
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.pairs_body import count_pairs
from tunemill.stages.training.preferences_body import check_lengths
from tunemill.stages.training.reward.config import RewardConfig
from tunemill.stages.training.reward.loss import reward_loss
from tunemill.stages.training.score_body import mean_over


def reward(
    config: RewardConfig,
    base_model: Model,
    training_data: PreferenceData,
    evaluation_data: PreferenceData | None,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None = None,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter, each with its head.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down.
    """
    file = training_data.held_out if evaluation_data is None else evaluation_data.rows
    pairs = RewardPairs(training_data.rows)
    held_out = RewardPairs(file) if file.exists() else None
    longest = {"training data": pairs.longest_row}
    if held_out is not None:
        if not len(held_out):
            raise RowError("there is no held-out pair to score. Hold out others, or none.")
        longest["held-out pairs"] = held_out.longest_row
    own_loss = OwnLoss(partial(loss_of, config), count_pairs)
    examples = Examples(
        pairs.read, pairs.lengths, config.seed, keep_order=config.curriculum_sampling, file=pairs.file
    )
    examples.longest_row = pairs.longest_row
    method = Method(
        examples=examples,
        collator=collator_of,
        check=partial(check_lengths, longest, report),
        own_loss=own_loss,
        score=None if held_out is None else partial(score, config, own_loss, held_out),
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def collator_of(model: Any) -> Any:
    """What turns pairs into a batch for this model."""
    return partial(collate_rewards, padding=padding_of(plain_model(model)))


def loss_of(config: RewardConfig, model: Any, batch: Batch) -> LossParts:
    """The loss over pairs, and what is shown of them by TRL's names."""
    chosen_b, rejected_b = rewards_of(model, batch)
    loss_b = reward_loss(chosen_b, rejected_b, config.center_rewards_coefficient)
    chosen_b, rejected_b = chosen_b.detach(), rejected_b.detach()
    return LossParts(
        totals={"pairs": loss_b.sum()},
        metrics={
            "accuracy": ((chosen_b > rejected_b).sum(), "pairs"),
            "margin": ((chosen_b - rejected_b).sum(), "pairs"),
            "mean_reward": ((chosen_b + rejected_b).sum() / 2, "pairs"),
        },
    )


def score(config: RewardConfig, own_loss: OwnLoss, pairs: RewardPairs, model: Any) -> dict[str, float]:
    """The figures of held-out pairs."""
    return mean_over(
        model,
        own_loss,
        collator_of(model),
        pairs.read,
        len(pairs),
        config.eval_batch_size or config.micro_batch_size,
    )
