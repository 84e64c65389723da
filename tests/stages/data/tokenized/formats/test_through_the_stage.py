"""The formats at work in the whole stage: bad rows, user code that changes, made-up rows."""

import json

import pytest
from support.rows import read_arrow, run_stage, trained_text

from tunemill.stages.data.synthetic.config import SyntheticConfig
from tunemill.stages.data.synthetic.stage import SYNTHETIC
from tunemill.stages.errors import RowError, SettingError

END = "<|im_end|>"
CODE = "def transform(cfg):\n    return lambda row: {{'text': row['say'] + '{mark}'}}\n"


def coded(tmp_path, text):
    path = tmp_path / "mine.py"
    path.write_text(text)
    return {"type": "mine.transform", "type_code": [str(path)]}


def test_user_code_makes_the_rows_and_an_edit_changes_them(tokenize, tokenizer, tmp_path):
    for mark in ("!", "?"):
        dataset, _ = tokenize([{"say": "Paris"}], **coded(tmp_path, CODE.format(mark=mark)))
        (row,) = read_arrow(dataset.rows)
        assert trained_text(tokenizer, row) == [f"Paris{mark}{END}"]


def test_rows_that_user_code_fails_on_are_listed(tokenize, tmp_path):
    rows = [{"say": "Paris"}, {"said": "Paris"}, {}]
    settings = coded(tmp_path, CODE.format(mark="."))
    with pytest.raises(
        RowError, match=r"(?s)2 rows .*rows\.jsonl:2, 3: type: mine\.transform raised KeyError: 'say'"
    ):
        tokenize(rows, **settings)
    dataset, _ = tokenize(rows, bad_rows="skip", **settings)
    assert [row["source_row"] for row in read_arrow(dataset.rows)] == [1]
    rejected = [json.loads(line) for line in (dataset.path / "rejected.jsonl").read_text().splitlines()]
    assert [entry["line"] for entry in rejected] == [2, 3]


def test_user_code_that_asks_for_a_key_stops_at_once(tokenize, tmp_path):
    code = "def transform(cfg):\n    return lambda row: {'text': str(cfg.learning_rate)}\n"
    with pytest.raises(SettingError, match=r"cfg\.learning_rate: the stage tokenized does not read this key"):
        tokenize([{"say": "Paris"}], bad_rows="skip", **coded(tmp_path, code))


def test_pretokenized_rows(tokenize):
    row = {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [-100, 6, 7]}
    dataset, events = tokenize([row, {**row, "labels": None}], type=None)
    assert [found["labels"] for found in read_arrow(dataset.rows)] == [[-100, 6, 7], [5, 6, 7]]
    assert events.summary["trained_tokens"] == 5
    with pytest.raises(RowError, match=r"rows\.jsonl:2: input_ids: 4711 is no token"):
        tokenize([row, {"input_ids": [4711]}], type=None)


def test_stepwise_rows_keep_their_classes(tokenize):
    row = {"prompt": "What", "completions": ["Paris.", "France."], "labels": [True, False]}
    dataset, events = tokenize([row], type="stepwise_supervised")
    (found,) = read_arrow(dataset.rows)
    assert [label for label in found["labels"] if label != -100] == [1, 0]
    assert found["roles"] == ["prompt", "step", "separator", "step", "separator"]
    assert events.summary["trained_tokens"] == 2


def test_made_up_rows_need_no_dataset(tokenizer, tmp_path):
    config = SyntheticConfig(type="_synthetic", length=3, sequence_length=4)
    dataset, events = run_stage(SYNTHETIC, config, tmp_path / "made", tokenizer=tokenizer)
    assert len(read_arrow(dataset.rows)) == events.summary["rows"] == 3
