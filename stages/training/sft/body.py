"""Supervised fine-tuning: rows of tokens, and the loss that the model computes over their labels."""

from collections.abc import Callable
from functools import partial
from typing import Any

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.mapped import Tokens
from tunemill.stages.errors import SettingError
from tunemill.stages.models.positions_body import check_context
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Method, OwnLoss
from tunemill.stages.training.order_body import Sequences
from tunemill.stages.training.sequences_body import check_rows, collator_of, sequences_of, takes_positions
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.sft.loss import entropy_weighted
from tunemill.stages.training.sft.positions import jumping_positions
from tunemill.stages.training.texts_body import scorer, trained_tokens


def sft(
    config: SftConfig,
    base_model: Model,
    training_data: TrainingData,
    evaluation_data: EvaluationData | None,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None = None,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down.
    """
    sequences = sequences_of(config, training_data)
    method = Method(
        examples=sequences,
        collator=partial(collator, config, report),
        check=partial(check, config, sequences, evaluation_data, report),
        own_loss=own_loss_of(config),
        score=None if evaluation_data is None else scorer(config, base_model, evaluation_data, report),
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def own_loss_of(config: SftConfig) -> OwnLoss | None:
    """The loss of EAFT where it is asked for; else the model computes it."""
    if not config.use_eaft:
        return None
    return OwnLoss(partial(entropy_weighted, alpha=config.eaft_alpha, k=config.eaft_k), trained_tokens)


def collator(config: SftConfig, report: Report, model: Any) -> Collator:
    """What makes batches for this model."""
    return collator_of(config, report, model, places=places_of(config, model))


def places_of(config: SftConfig, model: Any) -> Callable[[Tokens], Tokens] | None:
    """What gives the tokens of a row their positions; None where they are counted.

    Raises SettingError for a model that cannot be told positions.
    """
    if not config.use_pose:
        return None
    if not takes_positions(model):
        raise SettingError(f"use_pose: {type(plain_model(model)).__name__} takes no positions. Remove it.")
    return partial(
        jumping_positions,
        context=config.pose_max_context_len,
        chunks=config.pose_num_chunks,
        before=config.pose_split_on_token_ids or (),
        seed=config.seed,
    )


def check(
    config: SftConfig,
    sequences: Sequences,
    evaluation_data: EvaluationData | None,
    report: Report,
    model: Any,
    collator: Any,
) -> None:
    """Refuse a model with too few positions, or in which the rows of a sequence see each other."""
    if config.use_pose:
        check_context(plain_model(model), config.pose_max_context_len, "pose_max_context_len")
    check_rows(config, sequences, evaluation_data, report, model, collator)
