"""Supervised fine-tuning: rows of tokens, and the loss that the model computes over their labels."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.isolation_body import rows_leak
from tunemill.stages.data.rows.mapped import Rows, Tokens
from tunemill.stages.errors import SettingError
from tunemill.stages.models.loss_body import RowLoss, mean_loss, row_losses
from tunemill.stages.models.packed_loss_body import packed_row_losses
from tunemill.stages.models.positions_body import check_context, check_positions, table_of_positions
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.added_loss_body import balances_experts
from tunemill.stages.training.loop_body import plain_model, train
from tunemill.stages.training.method import Method, OwnLoss
from tunemill.stages.training.order_body import Sequences
from tunemill.stages.training.samples_body import with_samples
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.sft.loss import entropy_weighted, trained_tokens
from tunemill.stages.training.sft.positions import jumping_positions


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
    per_step = config.micro_batch_size * config.gradient_accumulation_steps
    sequences = Sequences(
        training_data.rows,
        training_data.packs,
        config.seed,
        group=per_step if config.group_by_length else None,
        keep_order=config.curriculum_sampling,
    )
    method = Method(
        examples=sequences,
        collator=partial(collator_of, config, report),
        check=partial(check_model, config, sequences, evaluation_data, report),
        own_loss=own_loss_of(config),
        score=None if evaluation_data is None else scorer(config, base_model, evaluation_data, report),
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


def own_loss_of(config: SftConfig) -> OwnLoss | None:
    """The loss of EAFT where it is asked for; else the model computes it."""
    if not config.use_eaft:
        return None
    return OwnLoss(partial(entropy_weighted, alpha=config.eaft_alpha, k=config.eaft_k), trained_tokens)


def collator_of(config: SftConfig, report: Report, model: Any) -> Collator:
    """Raises SettingError for batches that flash attention would read as one row each."""
    pad_to = config.sequence_len if config.pads_to_sequence_len else None
    made = partial(
        Collator,
        pad_to=pad_to,
        multiple=config.pad_to_multiple_of or 1,
        marks_padding=balances_experts(model),
        positions=table_of_positions(plain_model(model)),
        places=places_of(config, model),
    )
    # Kernels of the Hub are named kernels-community/flash-attn3.
    is_flash = "flash" in str(model.config._attn_implementation)
    if config.sample_packing:
        real = config.multipack_real_batches
        if not is_flash and takes_positions(model) and leaks(model, under_mask=balances_experts(model)):
            report.log(
                f"{type(plain_model(model)).__name__}: in one sequence its rows would see each other, so the rows of a "
                f"pack are rows of a batch: the same training, with more padding"
            )
            return made("apart")
        if real and is_flash and config.micro_batch_size > 1:
            raise SettingError(
                "multipack_real_batches: true: flash attention keeps packed rows apart in a batch of one only. Remove "
                "it, or use micro_batch_size: 1."
            )
        return made("flat" if (is_flash if real is None else not real) else "packed")
    flattens = config.batch_flattening is True or (config.batch_flattening == "auto" and is_flash)
    return made("flat" if flattens and pad_to is None else "padded")


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


def check_model(
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
    check_positions(plain_model(model), sequences.longest_row, "training data", report)
    if evaluation_data is not None:
        held_out = Rows(evaluation_data.rows).lengths
        check_positions(plain_model(model), int(held_out.max(initial=0)), "held-out rows", report)
    if collator.layout in ("padded", "apart"):
        return
    key = "sample_packing" if config.sample_packing else "batch_flattening"
    if leaks(model, under_mask=collator.marks_padding):
        plain = plain_model(model)
        raise SettingError(
            f"{key}: in {type(plain).__name__} the rows of a sequence see each other (it does not read position_ids as "
            f"borders). Set {key}: false."
        )


def takes_positions(model: Any) -> bool:
    """Whether the model can be told where a row begins."""
    return "position_ids" in inspect.signature(plain_model(model).forward).parameters


def leaks(model: Any, *, under_mask: bool) -> bool:
    """Whether the rows of a sequence see each other in this model."""
    if not takes_positions(model):
        return True
    was_training = model.training
    model.eval()
    found = rows_leak(plain_model(model), next(model.parameters()).device, under_mask)
    model.train(was_training)
    return found


def scorer(
    config: SftConfig, base_model: Model, evaluation_data: EvaluationData, report: Report
) -> Callable[[Any], dict[str, float]]:
    """What computes the held-out loss of a model, and shows what it writes where that is asked for."""
    rows = Rows(evaluation_data.rows)
    losses = packed_row_losses if config.eval_sample_packing else row_losses
    score = partial(
        _held_out_loss,
        rows=rows,
        batch_size=config.eval_batch_size or config.micro_batch_size,
        losses=losses,
    )
    return with_samples(score, config, rows, base_model.path, report) if config.generate_samples else score


def _held_out_loss(
    model: Any, rows: Rows, batch_size: int, losses: Callable[[Any, Rows, Sequence[int], int], list[RowLoss]]
) -> dict[str, float]:
    return {"eval_loss": mean_loss(losses(model, rows, range(len(rows)), batch_size))}
