"""The body of the `teacher_logprobs` stage: one pass of the teacher over the rows that are trained on.

B: rows of a batch, L: tokens of the longest, V: the teacher's vocabulary, N: trained tokens, K: the likeliest tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tunemill.stages.artifacts import Model, Tokenizer, TrainingData
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Rows, batches_by_length
from tunemill.stages.data.rows.teacher_rows import TaughtRow, taught_batch, teacher_writer, trained_positions
from tunemill.stages.errors import SettingError
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.teacher import TEACHER
from tunemill.stages.models.teacher_body import (
    BATCH_ROWS,
    likeliest_tokens,
    load_teacher,
    most_tokens,
    shared_tokens,
    teacher_folder,
)
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.teacher_logprobs.config import TeacherLogprobsConfig

# Rows of like length are put together among so many neighbours, and fewer where what is said of them has many bytes.
ROWS_AT_ONCE = 1024
BYTES_AT_ONCE = 64 << 20
BYTES_OF_ENTRY = 8

PADDED = Collator("padded", None)


def teacher_logprobs(
    config: TeacherLogprobsConfig,
    tokenizer: Tokenizer,
    training_data: TrainingData,
    out: Workspace,
    report: Report,
    teacher_model: Model | None = None,
) -> None:
    """Write `rows.arrow`. Raises SettingError for a teacher with other tokens, or too short for the rows."""
    be_quiet()
    folder = teacher_folder(config, teacher_model)
    model = load_teacher(folder, is_artifact=teacher_model is not None)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    tokens = shared_tokens(tokenizer.path, folder, vocabulary)
    rows = Rows(training_data.rows)
    check_positions(model, int(rows.lengths.max(initial=0)), "training data", report)
    width = min(config.teacher_top_k, tokens)
    kept = trained = hits = 0
    mass = 0.0
    with teacher_writer(out.data / "rows.arrow") as writer:
        for window in windows(rows, width):
            check_ids(rows, window, vocabulary)
            said = likeliest(model, rows, window, width, tokens)
            writer.write_batch(taught_batch([said[row] for row in window]))
            kept += len(window)
            for row in window:
                log_p_nk = said[row].log_p.reshape(-1, width)
                trained += len(log_p_nk)
                mass += float(np.exp(log_p_nk.astype(np.float64)).sum())
                hits += int(
                    (said[row].token_ids.reshape(-1, width) == rows.ids(row)[said[row].positions, None]).sum()
                )
            report.progress(kept, len(rows), "rows")
    check_finite("teacher", "a log-probability", mass, model.dtype)
    report.summary(
        rows=kept,
        trained_tokens=trained,
        top_k=width,
        bytes_per_token=BYTES_OF_ENTRY * width,
        mean_probability_kept=round(mass / max(trained, 1), 6),
        trained_tokens_among_them=round(hits / max(trained, 1), 6),
    )


def windows(rows: Rows, width: int) -> Iterator[range]:
    """Neighbouring rows, so many that what is said of them stays in memory."""
    first, size = 0, 0
    for row, length in enumerate(rows.lengths.tolist()):
        entries = length * width * BYTES_OF_ENTRY
        if row > first and (size + entries > BYTES_AT_ONCE or row - first == ROWS_AT_ONCE):
            yield range(first, row)
            first, size = row, 0
        size += entries
    if first < len(rows):
        yield range(first, len(rows))


def check_ids(rows: Rows, window: Sequence[int], vocabulary: int) -> None:
    """Raises SettingError for a token that the teacher has no embedding of."""
    largest = max(int(rows.ids(row).max(initial=0)) for row in window)
    if largest >= vocabulary:
        raise SettingError(
            f"{TEACHER}: the rows have the token {largest}, and the teacher has embeddings of 0 to {vocabulary - 1}: "
            f"the student's tokenizer has more tokens. Take a teacher that has them too, or do without them"
        )


def likeliest(model: Any, rows: Rows, window: Sequence[int], width: int, tokens: int) -> dict[int, TaughtRow]:
    """Row -> the `width` likeliest of the first `tokens` tokens at its trained tokens, and their log-probabilities.

    Log-probabilities are over the whole vocabulary of the model.
    """
    vocabulary = model.get_output_embeddings().weight.shape[0]
    found: dict[int, TaughtRow] = {}
    with torch.no_grad():
        for batch in batches_by_length(rows, window, BATCH_ROWS, most_tokens(vocabulary)):
            log_p_nk, ids_nk, counts_b = said_of_batch(model, rows, batch, width, tokens)
            first = 0
            for row, count in zip(batch, counts_b, strict=True):
                part = slice(first, first + count)
                first += count
                found[row] = TaughtRow(
                    row + 1,
                    trained_positions(rows.labels(row)).astype(np.int32),
                    np.full(count, width, np.int32),
                    ids_nk[part].numpy().astype(np.int32).ravel(),
                    log_p_nk[part].numpy().ravel(),
                )
    return found


def said_of_batch(
    model: Any, rows: Rows, batch: Sequence[int], width: int, tokens: int
) -> tuple[Tensor, Tensor, list[int]]:
    """[N, K] log-probabilities and ids, row after row, and how many trained tokens each row has."""
    tensors = PADDED([[(rows.ids(row), rows.labels(row))] for row in batch])
    device = next(model.parameters()).device
    trained_bl = tensors.pop("labels")[:, 1:] != IGNORED
    logits_blv = model(**{name: t.to(device) for name, t in tensors.items()}, use_cache=False).logits
    logits_nv = logits_blv[:, :-1][trained_bl.to(device)].float()
    log_p_nk, ids_nk = likeliest_tokens(logits_nv, width, tokens)
    return log_p_nk.cpu(), ids_nk.cpu(), trained_bl.sum(dim=1).tolist()
