"""Which rows of the datasets the rows of preference data are: found out again, for nothing of it is stored."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tunemill.stages.artifacts import PreferenceData, Preferences
from tunemill.stages.data.preference_data.body import fitted_in_order, split, without_duplicates
from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.preference_data.rows import read_preference_rows
from tunemill.stages.data.rows.tally import dataset_names
from tunemill.stages.errors import RowOf


def trace(
    config: PreferenceDataConfig, _made: PreferenceData, rows: Sequence[int], tokenized: list[Preferences]
) -> list[RowOf]:
    """Fits and merges the datasets as the stage did, each row with its number in its dataset."""
    datasets = [read_preference_rows(item.rows, number) for number, item in enumerate(tokenized, 1)]
    names = dataset_names(config.datasets, len(datasets))
    numbered = [replace(item, source_row=np.arange(len(item))) for item in datasets]
    merged, _ = fitted_in_order(numbered, config, names)
    trained, _ = split(without_duplicates(merged, config), config.val_set_size)
    return [RowOf("tokenized", int(trained.dataset[row]) - 1, int(trained.source_row[row])) for row in rows]
