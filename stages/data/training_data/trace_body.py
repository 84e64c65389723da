"""Which rows of the datasets the rows of training data are: found out again, for nothing of it is stored."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunemill.stages.artifacts import TokenizedDataset, TrainingData
from tunemill.stages.data.rows.tally import Tally, dataset_names
from tunemill.stages.data.rows.token_rows import concatenated, read_token_rows
from tunemill.stages.data.training_data.body import choose, in_pieces
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.errors import RowOf


def trace(
    config: TrainingDataConfig, _made: TrainingData, rows: Sequence[int], tokenized: list[TokenizedDataset]
) -> list[RowOf]:
    """Merges and fits the datasets as the stage did, each row with its number in its dataset.

    Numbers beyond those of the rows that are trained on are of those that were held out.
    """
    datasets = [read_token_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    numbered = [replace(item, source_row=np.arange(len(item))) for item in datasets]
    tally = Tally(dataset_names(config.datasets, len(datasets)))
    trained, held_out = choose(in_pieces(numbered, config), concatenated([]), config, tally)
    both = trained if held_out is None else concatenated([trained, held_out])
    return [RowOf("tokenized", int(both.dataset[row]) - 1, int(both.source_row[row])) for row in rows]
