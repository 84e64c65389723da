"""Merging, shuffling, lengths, duplicates and holding out of preference rows."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets
from pydantic import ValidationError
from support.preference_rows import TOKENIZERS, prepare, write_pairs
from support.rows import read_arrow, run_stage
from transformers import AutoTokenizer

from tunemill.stages.data.preference_data.config import PreferenceDataConfig
from tunemill.stages.data.preference_data.export_body import export_table
from tunemill.stages.data.preference_data.rows import cut_point
from tunemill.stages.data.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.errors import RowError


def pairs(count, start=0):
    """Pairs whose prompt is a number of two digits."""
    return [(f"{start + i:02d}", "c", "r") for i in range(count)]


def merge(folder, *datasets, **keys):
    """Run the stage on (prompt, chosen, rejected) triples, or on prepared artifacts."""
    made = [
        write_pairs(folder / f"in{number}", item) if isinstance(item, list) else item
        for number, item in enumerate(datasets)
    ]
    return run_stage(PREFERENCE_DATA, PreferenceDataConfig(**keys), folder / "out", tokenized=made)


def prompts(path):
    return [row["prompt"] for row in read_arrow(path)]


def test_the_order_is_that_of_datasets(tmp_path):
    one, two = pairs(11), pairs(7, start=50)
    tables = [Dataset.from_list([{"prompt": p} for p, _, _ in item]) for item in (one, two)]
    data, _ = merge(tmp_path / "merged", one, two, seed=7)
    assert prompts(data.rows) == concatenate_datasets(tables).shuffle(seed=7)["prompt"][:]
    data, _ = merge(tmp_path / "before", one, two, shuffle_before_merging_datasets=True)
    each = [table.shuffle(seed=42) for table in tables]
    assert prompts(data.rows) == concatenate_datasets(each).shuffle(seed=42)["prompt"][:]
    data, _ = merge(tmp_path / "single", one)
    assert prompts(data.rows) == tables[0].shuffle(seed=42)["prompt"][:]
    keys = {"shuffle_before_merging_datasets": True, "shuffle_merged_datasets": False}
    data, _ = merge(tmp_path / "alone", one, **keys)
    assert prompts(data.rows) == [p for p, _, _ in one]
    for key, value in (("shuffle_merged_datasets", False), ("curriculum_sampling", True)):
        data, _ = merge(tmp_path / key, one, two, **{key: value})
        assert prompts(data.rows) == [p for p, _, _ in (*one, *two)]


def test_rows_are_dropped_before_they_are_shuffled(tmp_path):
    rows = pairs(9)
    long = [*rows[:4], ("0" * 9, "c", "r"), *rows[4:]]
    with_long, _ = merge(tmp_path / "long", long, sequence_len=8)
    without, _ = merge(tmp_path / "short", rows, sequence_len=8)
    assert read_arrow(with_long.rows) == read_arrow(without.rows)


LONG = [
    ("12345", "12345", "1234"),  # just fits
    ("12345", "123456", "1"),  # the chosen answer is too long
    ("12345", "1", "123456"),  # the rejected one is
    ("12345678901", "1", "1"),  # the prompt is
    ("1234567890", "1", "1"),  # the prompt leaves no room
]
KEPT_LONG = {"sequence_len": 10, "shuffle_merged_datasets": False}


def test_long_rows_are_dropped(tmp_path):
    data, events = merge(tmp_path, LONG, **KEPT_LONG)
    assert [tuple(row.values()) for row in read_arrow(data.rows)] == LONG[:1]
    assert (events.summary["dropped_too_long"], events.summary["truncated"]) == (4, 0)


def test_long_answers_are_truncated_and_prompts_never(tmp_path):
    data, events = merge(tmp_path, LONG, excess_length_strategy="truncate", **KEPT_LONG)
    assert [tuple(row.values()) for row in read_arrow(data.rows)] == [
        ("12345", "12345", "1234"),
        ("12345", "12345", "1"),
        ("12345", "1", "12345"),
    ]
    assert (events.summary["dropped_too_long"], events.summary["truncated"]) == (2, 2)


def test_long_rows_can_be_forbidden(tmp_path):
    names = [{"path": "data/pairs.jsonl"}]
    with pytest.raises(
        RowError, match=r"4 rows are longer than sequence_len: 10(.|\n)*pairs.jsonl, row 2: 11 tok"
    ):
        merge(tmp_path, LONG, excess_length_strategy="raise", datasets=names, **KEPT_LONG)
    merge(tmp_path / "fits", LONG[:1], excess_length_strategy="raise", **KEPT_LONG)


def test_nothing_left_is_an_error(tmp_path):
    with pytest.raises(RowError, match=r"all 4 rows are longer than sequence_len: 10$"):
        merge(tmp_path / "drop", LONG[1:], **KEPT_LONG)
    with pytest.raises(RowError, match="cannot be truncated: their prompts alone are"):
        merge(tmp_path / "cut", LONG[3:], excess_length_strategy="truncate", **KEPT_LONG)


@pytest.mark.parametrize("tokenizer", ["chatml", "llama3", "sp", "gemma"])
def test_truncated_answers_are_what_their_first_tokens_say(tokenizer, tmp_path):
    text = "So it is — naïve café, 한국어 문장입니다. Done 🙂 then 🙂"
    loaded = AutoTokenizer.from_pretrained(TOKENIZERS / tokenizer)
    ids = loaded(text, add_special_tokens=False)["input_ids"]
    made, _ = prepare(tmp_path, [{"prompt": "P", "chosen": text, "rejected": "no"}], tokenizer)
    prompt = len(loaded("P", add_special_tokens=False)["input_ids"])
    for kept in range(3, len(ids)):
        keys = {"sequence_len": prompt + kept, "excess_length_strategy": "truncate"}
        data, _ = merge(tmp_path / str(kept), made, **keys)
        (row,) = read_arrow(data.rows)
        # A character of which only some bytes are left is left out.
        assert row["chosen"] == loaded.decode(ids[:kept]).rstrip("\N{REPLACEMENT CHARACTER}")
        assert row["rejected"] == "no"


def test_the_longer_answer_counts(tmp_path):
    rows = [{"prompt": "P", "chosen": a, "rejected": b} for a, b in (("so", "so so so"), ("so so so", "so"))]
    made, _ = prepare(tmp_path, rows)
    loaded = AutoTokenizer.from_pretrained(TOKENIZERS / "chatml")
    lengths = [len(loaded(text, add_special_tokens=False)["input_ids"]) for text in ("P", "so so so")]
    assert [row["tokens"] for row in read_arrow(made.rows)] == [sum(lengths)] * 2


def test_cut_point():
    # Three tokens share the third character, the first of them begins at the second one.
    ends = np.array([1, 3, 3, 3, 4])
    assert [cut_point(ends, limit) for limit in range(6)] == [0, 1, 2, 2, 3, None]


def test_duplicates(tmp_path):
    rows = [("p", "c", "r"), ("p", "r", "c"), ("p", "c", "r"), ("p", "cc", "r")]
    keys = {"shuffle_merged_datasets": False}
    data, _ = merge(tmp_path / "kept", rows, rows[:1], **keys)
    assert len(read_arrow(data.rows)) == 5
    data, events = merge(tmp_path / "unique", rows, rows[:1], dataset_exact_deduplication=True, **keys)
    assert [tuple(row.values()) for row in read_arrow(data.rows)] == [rows[0], rows[1], rows[3]]
    assert events.summary["dropped_duplicates"] == 2


@pytest.mark.parametrize(("size", "held_out"), [(0.25, 3), (0.01, 1), (4, 4)])
def test_the_last_rows_are_held_out(size, held_out, tmp_path):
    rows = pairs(10)
    whole, _ = merge(tmp_path / "whole", rows)
    data, events = merge(tmp_path / "split", rows, val_set_size=size)
    table = Dataset.from_list(read_arrow(whole.rows)).train_test_split(test_size=size, shuffle=False)
    assert prompts(data.rows) == table["train"]["prompt"][:]
    assert prompts(data.held_out) == table["test"]["prompt"][:]
    assert events.summary["held_out_rows"] == held_out
    assert not whole.held_out.exists()


def test_settings_that_cannot_be(tmp_path):
    with pytest.raises(RowError, match="would hold out 10 of 10 rows"):
        merge(tmp_path, pairs(10), val_set_size=10)
    with pytest.raises(ValidationError, match="neither a fraction below 1"):
        PreferenceDataConfig(val_set_size=1)
    with pytest.raises(ValidationError, match="keeps the rows in order"):
        PreferenceDataConfig(curriculum_sampling=True, shuffle_merged_datasets=True)


REWARDS = [{"input": "Why?", "chosen": "word " * n, "rejected": "No."} for n in (1, 40, 2)]


def test_reward_rows(tmp_path):
    made, _ = prepare(tmp_path, REWARDS, reward_model=True, type="bradley_terry.chat_template")
    whole = [row["chosen_ids"] for row in read_arrow(made.rows)]
    keys = {"shuffle_merged_datasets": False, "sequence_len": 20}
    data, events = merge(tmp_path / "cut", made, **keys)
    table = export_table(data.rows)
    assert table["chosen_ids"].to_pylist() == [ids[:20] for ids in whole]
    for side, label in (("chosen", 1.0), ("rejected", 0.0)):
        masks = table[f"attention_mask_{side}"].to_pylist()
        assert masks == [[1] * len(ids) for ids in table[f"{side}_ids"].to_pylist()]
        assert table[f"labels_{side}"].to_pylist() == [label] * 3
    assert events.summary["truncated"] == 1
    data, events = merge(tmp_path / "drop", made, excess_length_strategy="drop", **keys)
    assert export_table(data.rows)["chosen_ids"].to_pylist() == [whole[0], whole[2]]
    with pytest.raises(RowError, match="dataset 1, row 2"):
        merge(tmp_path / "raise", made, excess_length_strategy="raise", **keys)
    unique, _ = merge(tmp_path / "twice", made, made, dataset_exact_deduplication=True, **keys)
    assert len(read_arrow(unique.rows)) == 3


def test_reward_rows_are_shuffled_before_they_are_dropped(tmp_path):
    """In Axolotl they are prepared like rows of tokens, not like pairs."""
    given = [REWARDS * 3, REWARDS[1:] * 2]
    keys = {"reward_model": True, "type": "bradley_terry.chat_template"}
    made = [prepare(tmp_path / f"{n}", rows, **keys)[0] for n, rows in enumerate(given)]
    tables = [
        Dataset.from_list([{"ids": row["chosen_ids"]} for row in read_arrow(item.rows)]) for item in made
    ]
    data, _ = merge(tmp_path / "out", *made, excess_length_strategy="drop", sequence_len=20, val_set_size=2)
    shuffled = concatenate_datasets(tables).shuffle(seed=42)["ids"][:]
    expected = [ids for ids in shuffled if len(ids) <= 20]
    assert len(expected) < len(shuffled)
    assert export_table(data.rows)["chosen_ids"].to_pylist() == expected[:-2]
    assert export_table(data.held_out)["chosen_ids"].to_pylist() == expected[-2:]


def test_exported_texts(tmp_path):
    rows = pairs(2000)
    data, _ = merge(tmp_path, rows, shuffle_merged_datasets=False)
    reader = pa.ipc.open_file(str(data.rows))
    assert reader.num_record_batches == 2
    table = export_table(data.rows)
    assert table.column_names == ["prompt", "chosen", "rejected"]
    assert table.num_rows == 2000
    made, _ = prepare(tmp_path / "kto", [{"prompt": "P", "completion": "C", "label": 0}], rl="kto")
    data, _ = merge(tmp_path / "kto", made)
    assert export_table(data.rows).to_pylist() == [{"prompt": "P", "completion": "C", "label": False}]


def test_rows_by_dataset(tmp_path):
    names = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    keys = {"sequence_len": 10, "datasets": names, "val_set_size": 2}
    _, events = merge(tmp_path, LONG, pairs(5), **keys)
    (table,) = events.of_type("table")
    counts = {row[0]: dict(zip(table["columns"][1:], row[1:], strict=True)) for row in table["rows"]}
    assert (counts["a.jsonl"]["rows"], counts["a.jsonl"]["fit"]) == (5, 1)
    assert (counts["all"]["held out"], counts["all"]["kept"]) == (2, 4)


def test_pairs_that_occur_again_are_counted(tmp_path):
    rows = [*pairs(4), *pairs(1), ("00", "c", "other")]
    _, events = merge(tmp_path / "one", rows, curriculum_sampling=True, val_set_size=2)
    (table,) = (table for table in events.of_type("table") if table["title"] == "Quality")
    # Held out are the second of `00`, and another pair of the same prompt.
    assert table["rows"] == [
        ["rows that occur again (prompt and answers)", 0, 4, 0.0],
        ["held-out rows that are learnt from too", 1, 2, 0.5],
    ]
    assert events.summary["held_out_rows_learnt_from"] == 1 and "repeated_rows" not in events.summary
    _, events = merge(tmp_path / "two", rows)
    assert events.summary["repeated_rows"] == 1
    _, events = merge(tmp_path / "three", rows, dataset_exact_deduplication=True)
    assert "repeated_rows" not in events.summary and events.summary["dropped_duplicates"] == 1
