"""Rows that are never trained on."""

import pytest
from support.rows import read_arrow, run_stage
from support.token_data import counted, write_tokenized

from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.training_data.config import TrainingDataConfig
from tunemill.stages.training_data.stage import TRAINING_DATA


def prepare(tmp_path, tokenized=None, training_data=None, **settings):
    config = EvaluationDataConfig(**settings)
    return run_stage(
        EVALUATION_DATA, config, tmp_path / "out", tokenized=tokenized, training_data=training_data
    )


def trained_on(tmp_path, rows, **settings):
    config = TrainingDataConfig(shuffle_merged_datasets=False, **settings)
    tokenized = [write_tokenized(tmp_path / "train", rows)]
    return run_stage(TRAINING_DATA, config, tmp_path / "training", tokenized=tokenized)[0]


def names(data):
    return [row["input_ids"][0] for row in read_arrow(data.rows)]


def test_rows_of_test_datasets(tmp_path):
    given = [
        write_tokenized(tmp_path / "a", counted([3, 9, 2])),
        write_tokenized(tmp_path / "b", counted([4], start=10)),
    ]
    data, events = prepare(tmp_path, tokenized=given, sequence_len=5)
    assert names(data) == [0, 2, 10]
    assert events.summary == {"rows": 3, "dropped_too_long": 1, "tokens": 9, "trained_tokens": 6}
    assert read_arrow(data.rows)[1] == {"input_ids": [2, 2], "labels": [-100, 2]}


def test_eval_sequence_len_wins(tmp_path):
    given = [write_tokenized(tmp_path / "a", counted([3, 9, 2]))]
    assert names(prepare(tmp_path, tokenized=given, sequence_len=5, eval_sequence_len=9)[0]) == [0, 1, 2]


def test_rows_that_training_held_out(tmp_path):
    training_data = trained_on(tmp_path, counted([3] * 10), val_set_size=2)
    assert names(prepare(tmp_path, training_data=training_data)[0]) == [8, 9]


def test_long_rows_of_a_completion_dataset_are_split(tmp_path):
    given = [write_tokenized(tmp_path / "a", [(list(range(5)), list(range(5)))], splits=True)]
    data, _ = prepare(tmp_path, tokenized=given, sequence_len=3)
    assert [row["input_ids"] for row in read_arrow(data.rows)] == [[0, 1, 2], [3, 4]]


def test_nothing_was_set_aside(tmp_path):
    training_data = trained_on(tmp_path, counted([3] * 10))
    with pytest.raises(SettingError, match="set test_datasets or val_set_size"):
        prepare(tmp_path, training_data=training_data)


def test_every_row_is_too_long(tmp_path):
    given = [write_tokenized(tmp_path / "a", counted([8, 9]))]
    with pytest.raises(RowError, match=r"all 2 are longer than sequence_len: 5; raise eval_sequence_len"):
        prepare(tmp_path, tokenized=given, sequence_len=5)
