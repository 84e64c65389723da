"""Rows that are trained on and rows held out, in Axolotl's order: what the `datasets` library makes of its steps."""

import pytest
from datasets import Dataset, concatenate_datasets
from support.rows import read_arrow, run_stage
from support.token_data import write_tokenized

from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA

LIMIT = 6


def dataset(number, count):
    """Rows of 2 to 8 tokens; every fifth is that of another dataset too, every seventh trains nothing."""
    rows = []
    for i in range(count):
        name = i if i % 5 == 0 else 100 * number + i
        ids = [name] * (2 + i * 3 % 7)
        rows.append((ids, [-100] * len(ids) if i % 7 == 6 else [-100, *ids[1:]]))
    return rows


def as_axolotl(
    given,
    *,
    shuffle_merged_datasets=True,
    shuffle_before_merging_datasets=False,
    curriculum_sampling=False,
    excess_length_strategy="drop",
    dataset_exact_deduplication=False,
    dataset_shard_num=None,
    dataset_shard_idx=None,
    val_set_size=0,
    seed=42,
    **_,
):
    """(ids of the rows to train on, ids of those held out)."""
    tables = [Dataset.from_list([{"ids": ids, "labels": labels} for ids, labels in rows]) for rows in given]
    if len(tables) > 1 and shuffle_before_merging_datasets:
        tables = [table.shuffle(seed=seed) for table in tables]
    merged = concatenate_datasets(tables)
    if shuffle_merged_datasets and not curriculum_sampling:
        merged = merged.shuffle(seed=seed)
    if excess_length_strategy == "truncate":
        merged = merged.map(lambda row: {name: row[name][:LIMIT] for name in ("ids", "labels")})
    merged = merged.filter(lambda row: len(row["ids"]) <= LIMIT)
    if dataset_exact_deduplication:
        seen = [str(row) for row in merged]
        merged = merged.select([i for i, row in enumerate(seen) if row not in seen[:i]])
    if dataset_shard_num:
        merged = merged.shard(num_shards=dataset_shard_num, index=dataset_shard_idx)
    parts = [merged]
    if val_set_size:
        cut = merged.train_test_split(test_size=val_set_size, shuffle=False)
        parts = [cut["train"], cut["test"]]
    trained = [[row["ids"] for row in part if set(row["labels"]) != {-100}] for part in parts]
    return trained[0], trained[1] if val_set_size else None


def prepared(folder, given, **settings):
    tokenized = [write_tokenized(folder / str(number), rows) for number, rows in enumerate(given)]
    config = TrainingDataConfig(sequence_len=LIMIT, **settings)
    data, _ = run_stage(TRAINING_DATA, config, folder / "out", tokenized=tokenized)
    return (
        [row["input_ids"] for row in read_arrow(data.rows)],
        [row["input_ids"] for row in read_arrow(data.held_out)] if data.held_out.exists() else None,
    )


COUNTS = {"one": [23], "two": [23, 9], "three": [9, 31, 4]}
SETTINGS = {
    "plain": {},
    "seed": {"seed": 7},
    "share": {"val_set_size": 0.2},
    "small share": {"val_set_size": 0.03, "seed": 1},
    "count": {"val_set_size": 5},
    "each before": {"shuffle_before_merging_datasets": True, "val_set_size": 4},
    "each alone": {
        "shuffle_before_merging_datasets": True,
        "shuffle_merged_datasets": False,
        "val_set_size": 4,
    },
    "not at all": {"shuffle_merged_datasets": False, "val_set_size": 0.3},
    "curriculum": {"curriculum_sampling": True, "val_set_size": 3},
    "truncated": {"excess_length_strategy": "truncate", "val_set_size": 0.2},
    "no duplicates": {"dataset_exact_deduplication": True, "val_set_size": 0.2},
    "shards": {"dataset_shard_num": 3, "dataset_shard_idx": 1, "val_set_size": 2},
    "shards without duplicates": {
        "dataset_exact_deduplication": True,
        "dataset_shard_num": 2,
        "dataset_shard_idx": 0,
    },
    "packed": {"sample_packing": True, "val_set_size": 0.2},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("counts", COUNTS)
def test_rows_and_held_out_rows_are_axolotls(tmp_path, counts, name):
    given = [dataset(number, count) for number, count in enumerate(COUNTS[counts])]
    if counts == "one" and name == "each alone":
        # A single dataset is shuffled by shuffle_merged_datasets alone.
        expected = as_axolotl(given, **SETTINGS["each alone"] | {"shuffle_before_merging_datasets": False})
    else:
        expected = as_axolotl(given, **SETTINGS[name])
    assert prepared(tmp_path, given, **SETTINGS[name]) == expected


def test_an_empty_text_is_no_row_before_the_shuffle(tmp_path):
    """Axolotl makes no piece of it, so it must not move the others."""
    texts = [([i] * 3, [i] * 3) for i in range(12)]
    given = [[*texts[:5], ([], []), *texts[5:]], [([], []), *texts]]
    tokenized = [write_tokenized(tmp_path / str(n), rows, splits=True) for n, rows in enumerate(given)]
    data, events = run_stage(
        TRAINING_DATA, TrainingDataConfig(sequence_len=LIMIT), tmp_path / "out", tokenized=tokenized
    )
    without = [[row for row in rows if row[0]] for rows in given]
    assert [row["input_ids"] for row in read_arrow(data.rows)] == as_axolotl(without)[0]
    assert events.summary["dropped_too_short"] == 2
