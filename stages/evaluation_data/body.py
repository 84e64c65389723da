"""The body of the evaluation_data stage: gather the rows, leave out those that are too long."""

import numpy as np

from tunemill.stages.artifacts import TokenizedDataset, TrainingData
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.report import Report, Workspace
from tunemill.stages.tokenized.token_rows import TokenRows, concatenated, read_token_rows, write_token_rows


def evaluation_data(
    config: EvaluationDataConfig,
    tokenized: list[TokenizedDataset] | None,
    training_data: TrainingData | None,
    out: Workspace,
    report: Report,
) -> None:
    """Write `rows.arrow`. Raises SettingError when nothing was set aside, RowError when nothing fits."""
    limit = config.eval_sequence_len or config.sequence_len
    rows = gather(tokenized or [], training_data).split_at(limit)
    kept = rows.take(rows.length <= limit)
    if len(kept) == 0:
        key = "eval_sequence_len" if config.eval_sequence_len else "sequence_len"
        raise RowError(
            f"no row is left to evaluate on: all {len(rows)} are longer than {key}: {limit}; "
            "raise eval_sequence_len"
        )
    write_token_rows(kept, out.data / "rows.arrow")
    report.summary(
        rows=len(kept),
        dropped_too_long=len(rows) - len(kept),
        tokens=int(np.sum(kept.length)),
        trained_tokens=int(np.sum(kept.trained)),
    )


def gather(tokenized: list[TokenizedDataset], training_data: TrainingData | None) -> TokenRows:
    """Rows of test_datasets, and the rows that training held out."""
    held_out = training_data is not None and training_data.held_out.exists()
    parts = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    if held_out and training_data is not None:
        parts.append(read_token_rows(training_data.held_out))
    if not parts:
        raise SettingError("there are no rows to evaluate on: set test_datasets or val_set_size")
    return concatenated(parts)
