"""The body of the prompt_data stage: prompts of all datasets, those that are too long left out, in one order."""

import json

import pytest
from datasets import Dataset
from support.rows import read_arrow, run_stage

from tunemill.stages.artifacts import Prompts
from tunemill.stages.data.prompt_data.config import PromptDataConfig
from tunemill.stages.data.prompt_data.stage import PROMPT_DATA
from tunemill.stages.data.rows.prompt_rows import OF_DATASET, PromptRows
from tunemill.stages.data.rows.token_rows import open_writer
from tunemill.stages.errors import RowError


def prompts(folder, texts):
    """Prepared prompts in which every character is a token."""
    import pyarrow as pa

    folder.mkdir(parents=True)
    rows = [
        {
            "source_row": number,
            "prompt_ids": list(map(ord, text)),
            "prompt": json.dumps(text),
            "columns": '{"n": 1}',
        }
        for number, text in enumerate(texts, 1)
    ]
    with open_writer(folder / "rows.arrow", OF_DATASET) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=OF_DATASET))
    return Prompts(folder)


def merged(folder, *datasets, **keys):
    """The artifact of these datasets, and what was said."""
    made = [prompts(folder / f"in{number}", texts) for number, texts in enumerate(datasets)]
    return run_stage(PROMPT_DATA, PromptDataConfig(**keys), folder / "out", tokenized=made)


def texts_of(data):
    return [json.loads(row["prompt"]) for row in read_arrow(data.rows)]


def test_the_order_is_that_of_datasets_library_and_may_be_kept(tmp_path):
    one, two = [f"a{n}" for n in range(9)], [f"b{n}" for n in range(4)]
    data, events = merged(tmp_path / "shuffled", one, two, seed=7)
    assert texts_of(data) == Dataset.from_list([{"p": p} for p in (*one, *two)]).shuffle(seed=7)["p"][:]
    assert events.summary == {"rows": 13, "dropped_too_long": 0}
    for key, value in (("shuffle_merged_datasets", False), ("curriculum_sampling", True)):
        data, _ = merged(tmp_path / key, one, two, **{key: value})
        assert texts_of(data) == [*one, *two]
    assert [row["dataset"] for row in read_arrow(data.rows)] == [1] * 9 + [2] * 4
    rows = PromptRows(data.rows)
    assert len(rows) == 13 and rows.longest == 2 and rows[12].columns == {"n": 1} and rows[12].value == "b3"


def test_the_last_prompts_are_held_out_and_those_that_are_learned_from_too_are_counted(tmp_path):
    texts = [f"a{n}" for n in range(9)]
    whole, _ = merged(tmp_path / "whole", texts, seed=7)
    assert not whole.held_out.exists()
    for name, size, count in (("share", 0.3, 3), ("number", 4, 4)):
        data, events = merged(tmp_path / name, texts, seed=7, val_set_size=size)
        held_out = [json.loads(row["prompt"]) for row in read_arrow(data.held_out)]
        assert [*texts_of(data), *held_out] == texts_of(whole) and len(held_out) == count
        assert events.summary == {"rows": 9 - count, "held_out_rows": count, "dropped_too_long": 0}
        (table,) = (one for one in events.of_type("table") if one["title"] == "Prompts by dataset")
        assert table["rows"] == [["dataset 1", 9, 9 - count, count]]
    _, events = merged(tmp_path / "twice", ["b", "c", "b"], shuffle_merged_datasets=False, val_set_size=0.3)
    assert events.summary["held_out_rows_learnt_from"] == 1
    with pytest.raises(RowError, match="would hold out 9 of 9 prompts and leave none"):
        merged(tmp_path / "all", texts, val_set_size=9)
    with pytest.raises(ValueError, match="neither a fraction below 1 nor a whole number"):
        PromptDataConfig(val_set_size=1)


def test_long_prompts_are_left_out_before_anything_is_shuffled_or_refused(tmp_path):
    short, long = ["aaa", "bbb", "ccc"], "x" * 9
    without, _ = merged(tmp_path / "without", short, sequence_len=8)
    dropped, events = merged(tmp_path / "dropped", [short[0], long, *short[1:]], sequence_len=8)
    assert texts_of(dropped) == texts_of(without) and events.summary["dropped_too_long"] == 1
    with pytest.raises(RowError, match=r"1 prompts are longer than sequence_len: 8(.|\n)*row 2: 9 tokens"):
        merged(tmp_path / "raised", [short[0], long], sequence_len=8, excess_length_strategy="raise")
    with pytest.raises(RowError, match="all 1 prompts are longer than sequence_len: 8"):
        merged(tmp_path / "none", [long], sequence_len=8)
