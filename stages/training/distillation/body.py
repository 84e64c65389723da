"""Distillation: rows of tokens as in supervised training, and beside them what a teacher says of each trained token.

B: sequences of a micro batch, L: their tokens, V: the vocabulary, N: trained tokens, K: the teacher's likeliest tokens.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TeacherLogProbs, TrainingData
from tunemill.stages.data.rows.collate_body import Collator, Row
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.teacher_rows import Taught, TeacherRows
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.distillation.loss import top_k_divergence
from tunemill.stages.training.loop_body import train
from tunemill.stages.training.method import Batch, LossParts, Method, OwnLoss
from tunemill.stages.training.order_body import Sequences
from tunemill.stages.training.sequences_body import check_rows, collator_of, sequences_of
from tunemill.stages.training.texts_body import scorer, trained_tokens

TEACHER_IDS, TEACHER_LOG_P = "teacher_ids", "teacher_log_p"


def distillation(
    config: DistillationConfig,
    base_model: Model,
    training_data: TrainingData,
    teacher_logprobs: list[TeacherLogProbs],
    evaluation_data: EvaluationData | None,
    out: Workspace,
    report: Report,
    stored_adapter: Adapter | None = None,
) -> None:
    """Train, resuming from the last complete checkpoint, and write the model or the adapter.

    Raises SettingError for what this machine or model cannot honour, UserError where the loss breaks down.
    """
    teacher = TeacherRows(teacher_logprobs, training_data)
    sequences = sequences_of(config, training_data, partial(TaughtSequences, teacher))
    method = Method(
        examples=sequences,
        collator=partial(collator, config, report),
        check=partial(check, config, sequences, evaluation_data, report),
        own_loss=OwnLoss(partial(loss_of, config), trained_tokens),
        score=None if evaluation_data is None else scorer(config, base_model, evaluation_data, report),
    )
    train(config.going_on_from(stored_adapter), base_model, method, out, report)


class TaughtTokens(NamedTuple):
    """A row of tokens, and what the teacher says of it."""

    row: Row
    taught: Taught


class TaughtSequences(Sequences):
    """Sequences of rows, each with what the teacher says of it: both are read by the row's number."""

    def __init__(self, teacher: TeacherRows, *arguments: Any, **given: Any) -> None:
        self._teacher = teacher
        super().__init__(*arguments, **given)

    def _sequence(self, number: int) -> list[TaughtTokens]:  # type: ignore[override]
        read = zip(self.rows(number), super()._sequence(number), strict=True)
        return [TaughtTokens(tokens, self._teacher.of(row, tokens[1])) for row, tokens in read]


@dataclass(frozen=True)
class TaughtCollator:
    """Batches as `rows` makes them, and beside them [N, K] what the teacher says of their trained tokens.

    Their order is the same in all layouts: sequence after sequence, row after row.
    """

    rows: Collator

    def __call__(self, sequences: Sequence[Sequence[TaughtTokens]]) -> Batch:
        batch = self.rows([[one.row for one in sequence] for sequence in sequences])
        taught = [one.taught for sequence in sequences for one in sequence]
        widest = max(one.log_p_nk.shape[1] for one in taught)
        ids_nk = np.concatenate([_widened(one.token_ids_nk, widest, 0) for one in taught])
        log_p_nk = np.concatenate([_widened(one.log_p_nk, widest, -np.inf) for one in taught])
        teacher = {
            TEACHER_IDS: torch.from_numpy(ids_nk.astype(np.int64)),
            TEACHER_LOG_P: torch.from_numpy(log_p_nk),
        }
        return {**batch, **teacher}


def _widened(part_nk: Any, width: int, filler: float) -> Any:
    return np.pad(part_nk, ((0, 0), (0, width - part_nk.shape[1])), constant_values=filler)


def collator(config: DistillationConfig, report: Report, model: Any) -> TaughtCollator:
    """What makes batches for this model."""
    return TaughtCollator(collator_of(config, report, model))


def check(
    config: DistillationConfig,
    sequences: Sequences,
    evaluation_data: EvaluationData | None,
    report: Report,
    model: Any,
    collator: TaughtCollator,
) -> None:
    """Refuse a model with too few positions, or in which the rows of a sequence see each other."""
    check_rows(config, sequences, evaluation_data, report, model, collator.rows)


def loss_of(config: DistillationConfig, model: Any, batch: Batch) -> LossParts:
    """The loss of a micro batch, as sums over its trained tokens; both of its parts are shown beside it."""
    beside = ("labels", TEACHER_IDS, TEACHER_LOG_P)
    inputs = {name: value for name, value in batch.items() if name not in beside}
    logits_blv = model(**inputs, use_cache=False).logits
    targets_bl = batch["labels"][:, 1:]
    trained_bl = targets_bl != IGNORED
    logits_nv = logits_blv[:, :-1][trained_bl].float()
    with _weighed(config.kd_ce_alpha):
        cross_entropy = functional.cross_entropy(logits_nv, targets_bl[trained_bl], reduction="sum")
    with _weighed(config.kd_alpha):
        divergences_n = top_k_divergence(
            logits_nv,
            batch[TEACHER_IDS],
            batch[TEACHER_LOG_P],
            temperature=config.kd_temperature,
            beta=config.kd_beta,
            normalizes=config.kd_normalize_topk,
        )
        divergence = config.kd_temperature**2 * divergences_n.sum()
    return LossParts(
        {"tokens": config.kd_alpha * divergence + config.kd_ce_alpha * cross_entropy},
        {"kd_loss": (divergence.detach(), "tokens"), "ce_loss": (cross_entropy.detach(), "tokens")},
    )


def _weighed(weight: float) -> Any:
    """What is only shown needs no gradient."""
    return nullcontext() if weight else torch.no_grad()
