"""`type: _synthetic`: rows of random tokens."""

import numpy as np
import pytest
from pydantic import ValidationError
from support.formats import TOKENIZERS
from support.rows import files_of, make_workspace, read_arrow

from tunemill.stages.artifacts import TokenizedDataset, Tokenizer
from tunemill.stages.data.synthetic.body import synthetic
from tunemill.stages.data.synthetic.config import SyntheticConfig
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report


def make(folder, tokenizer="sp", **settings):
    config = SyntheticConfig(type="_synthetic", **settings)
    workspace = make_workspace(folder)
    synthetic(config, Tokenizer(TOKENIZERS / tokenizer), workspace, Report(lambda _event: None))
    return TokenizedDataset(workspace.data)


def test_rows(tmp_path):
    dataset = make(tmp_path, length=3, sequence_length=5, min_input_id=10, max_input_id=12)
    rows = read_arrow(dataset.rows)
    assert [row["source_row"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["labels"] == row["input_ids"]
        assert len(row["input_ids"]) == 5
        assert set(row["input_ids"]) <= {10, 11}
        assert (row["roles"], row["role_ends"]) == (["tokens"], [5])


def test_the_rows_are_those_of_one_draw(tmp_path):
    """More rows than one batch holds are the same as all of them drawn at once."""
    dataset = make(tmp_path, length=2500, sequence_length=7, seed=3)
    drawn = np.random.default_rng(3).integers(100, 4068, (2500, 7)).tolist()
    assert [row["input_ids"] for row in read_arrow(dataset.rows)] == drawn


def test_deterministic_for_a_seed(tmp_path):
    small = {"length": 4, "sequence_len": 6}
    first, again = make(tmp_path / "a", **small), make(tmp_path / "b", **small)
    assert files_of(first) == files_of(again)
    assert files_of(make(tmp_path / "c", seed=1, **small)) != files_of(first)


def test_defaults():
    config = SyntheticConfig(type="_synthetic", sequence_len=64)
    assert (config.length, config.row_tokens, config.min_input_id, config.seed) == (1000, 64, 100, 42)


def test_refused(tmp_path):
    with pytest.raises(SettingError, match=r"max_input_id: 32000 is beyond the vocabulary: .* 4068 tokens"):
        make(tmp_path / "a", max_input_id=32000)
    with pytest.raises(SettingError, match="min_input_id: 5000 is beyond the vocabulary"):
        make(tmp_path / "b", min_input_id=5000)
    with pytest.raises(ValidationError, match="max_input_id: 100 must be more than min_input_id: 100"):
        SyntheticConfig(type="_synthetic", max_input_id=100)
