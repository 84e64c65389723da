"""Trained tokens, and the loss of held-out rows, of methods that teach a model to write."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import EvaluationData, Model
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.models.loss_body import RowLoss, mean_loss, row_losses
from tunemill.stages.models.packed_loss_body import packed_row_losses
from tunemill.stages.report import Report
from tunemill.stages.training.bench_body import Score, with_bench
from tunemill.stages.training.keys.texts import TextKeys
from tunemill.stages.training.method import Batch, Counts
from tunemill.stages.training.samples_body import with_samples


def trained_tokens(batch: Batch) -> Counts:
    """How many tokens of a batch are trained: the first of a sequence is predicted from nothing."""
    return {"tokens": int((batch["labels"][:, 1:] != IGNORED).sum())}


def scorer(
    config: TextKeys, base_model: Model, evaluation_data: EvaluationData, report: Report
) -> Callable[[Any], dict[str, float]]:
    """What computes the held-out loss of a model, and shows what it writes or answers where that is asked for."""
    rows = Rows(evaluation_data.rows)
    losses = packed_row_losses if config.eval_sample_packing else row_losses
    batch_size = config.eval_batch_size or config.micro_batch_size
    score: Score = partial(_held_out_loss, rows=rows, batch_size=batch_size, losses=losses)
    if config.do_bench_eval and config.bench_dataset is not None:
        score = with_bench(score, Path(config.bench_dataset), batch_size, base_model.path, report)
    return with_samples(score, config, rows, base_model.path, report) if config.generate_samples else score


def _held_out_loss(
    model: Any, rows: Rows, batch_size: int, losses: Callable[[Any, Rows, Sequence[int], int], list[RowLoss]]
) -> dict[str, float]:
    return {"eval_loss": mean_loss(losses(model, rows, range(len(rows)), batch_size))}
