"""Which rows of the datasets the rows to evaluate on are: found out again, for nothing of it is stored."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunemill.stages.artifacts import EvaluationData, TokenizedDataset, TrainingData
from tunemill.stages.data.evaluation_data.body import choose
from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.rows.tally import Tally
from tunemill.stages.data.rows.token_rows import concatenated, read_token_rows
from tunemill.stages.errors import RowOf


def trace(
    config: EvaluationDataConfig,
    _made: EvaluationData,
    rows: Sequence[int],
    tokenized: list[TokenizedDataset] | None = None,
    training_data: TrainingData | None = None,
) -> list[RowOf]:
    """Fits the rows as the stage did, each with its number in its dataset, or among those that training held out."""
    trained = None if training_data is None else read_token_rows(training_data.rows)
    if tokenized:
        parts = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
        name, first = "tokenized", 0
    else:
        assert training_data is not None and trained is not None, "rows come from somewhere"
        parts = [read_token_rows(training_data.held_out, 1)]
        name, first = "training_data", len(trained)
    gathered = concatenated([replace(item, source_row=np.arange(len(item)) + first) for item in parts])
    fitted = gathered.fitted(config.limits.longest, config.limits.shortest)
    # Names stand in messages only.
    tally = Tally([str(number) for number, _ in enumerate(parts, 1)])
    chosen, _ = choose(fitted, gathered, config, trained, tally)
    return [RowOf(name, int(chosen.dataset[row]) - 1, int(chosen.source_row[row])) for row in rows]
