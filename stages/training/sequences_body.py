"""Rows of tokens as examples and batches, whatever is learned of them: packed, flattened or padded."""

import inspect
from collections.abc import Callable
from functools import partial
from math import lcm
from typing import Any

from tunemill.stages.artifacts import EvaluationData, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.isolation_body import rows_leak
from tunemill.stages.data.rows.mapped import Rows, Tokens
from tunemill.stages.errors import SettingError
from tunemill.stages.models.positions_body import check_positions, table_of_positions
from tunemill.stages.models.wrapped_body import plain_model
from tunemill.stages.report import Report
from tunemill.stages.training.added_loss_body import balances_experts
from tunemill.stages.training.keys.rows import RowKeys
from tunemill.stages.training.order_body import Sequences


def sequences_of(
    config: RowKeys, training_data: TrainingData, made: Callable[..., Sequences] = Sequences
) -> Sequences:
    """The sequences that are trained on, in the order of each epoch; `made` by Sequences or what reads more."""
    per_step = config.micro_batch_size * config.gradient_accumulation_steps
    return made(
        training_data.rows,
        training_data.packs,
        config.seed,
        group=per_step if config.group_by_length else None,
        keep_order=config.curriculum_sampling,
    )


def collator_of(
    config: RowKeys,
    report: Report,
    model: Any,
    *,
    places: Callable[[Tokens], Tokens] | None = None,
    own_labels: bool = False,
) -> Collator:
    """What makes batches for this model. `places` and `own_labels` as the Collator has them.

    Raises SettingError for batches that flash attention would read as one row each.
    """
    pad_to = config.sequence_len if config.pads_to_sequence_len else None
    made = partial(
        Collator,
        pad_to=pad_to,
        multiple=lcm(config.pad_to_multiple_of or 1, config.sharding.stretches),
        marks_padding=balances_experts(model),
        positions=table_of_positions(plain_model(model)),
        places=places,
        own_labels=own_labels,
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


def check_rows(
    config: RowKeys,
    sequences: Sequences,
    evaluation_data: EvaluationData | None,
    report: Report,
    model: Any,
    collator: Any,
) -> None:
    """Refuse a model with too few positions, or in which the rows of a sequence see each other."""
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
