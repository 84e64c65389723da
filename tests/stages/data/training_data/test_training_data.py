"""Merging, order, sequence length, held-out rows and packs."""

import numpy as np
import pytest
from datasets import Dataset
from pydantic import ValidationError
from support.rows import files_of, read_arrow, run_stage
from support.token_data import counted, write_tokenized

from tunemill.stages.data.rows.duplicates import first_of_equal
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.errors import RowError

# Axolotl's order for `seed: 7`: its 80 prepared rows of the same kind came in the order of this generator.
ORDER_OF_TEN_WITH_SEED_7 = [8, 0, 7, 1, 3, 6, 2, 4, 5, 9]


@pytest.fixture
def prepare(tmp_path):
    calls = 0

    def run(*datasets, splits=False, **settings):
        nonlocal calls
        calls += 1
        given = [
            write_tokenized(tmp_path / f"{calls}-{number}", rows, splits=splits)
            for number, rows in enumerate(datasets)
        ]
        if "curriculum_sampling" not in settings:
            settings.setdefault("shuffle_merged_datasets", False)
        config = TrainingDataConfig(**settings)
        return run_stage(TRAINING_DATA, config, tmp_path / f"out{calls}", tokenized=given)

    return run


def names(rows):
    return [row["input_ids"][0] for row in rows]


def test_rows_keep_their_tokens_labels_and_order(prepare):
    data, events = prepare(counted([4, 2, 3]), counted([5], start=10))
    rows = read_arrow(data.rows)
    assert rows[1] == {"input_ids": [1, 1], "labels": [-100, 1]}
    assert names(rows) == [0, 1, 2, 10]
    assert read_arrow(data.packs) == [{"rows": [i]} for i in range(4)]
    assert not data.held_out.exists()
    assert events.summary == {
        "rows": 4,
        "dropped_too_long": 0,
        "dropped_too_short": 0,
        "truncated": 0,
        "dropped_untrained": 0,
        "sequences": 4,
        "tokens": 14,
        "trained_tokens": 10,
    }


def test_shuffling_is_that_of_the_datasets_library(prepare):
    data, _ = prepare(counted([3] * 10), shuffle_merged_datasets=True, seed=7)
    assert names(read_arrow(data.rows)) == ORDER_OF_TEN_WITH_SEED_7


def test_each_dataset_may_be_shuffled_by_itself(prepare):
    data, _ = prepare(
        counted([3] * 10), counted([3] * 10, start=10), shuffle_before_merging_datasets=True, seed=7
    )
    shuffled = [*ORDER_OF_TEN_WITH_SEED_7, *(10 + i for i in ORDER_OF_TEN_WITH_SEED_7)]
    assert names(read_arrow(data.rows)) == shuffled
    alone, _ = prepare(counted([3] * 10), shuffle_before_merging_datasets=True, seed=7)
    assert names(read_arrow(alone.rows)) == list(range(10))


def test_rows_are_shuffled_before_long_ones_are_dropped(prepare):
    data, _ = prepare(counted([3, 9] * 5), sequence_len=4, shuffle_merged_datasets=True, seed=7)
    assert names(read_arrow(data.rows)) == [i for i in ORDER_OF_TEN_WITH_SEED_7 if i % 2 == 0]


def test_curriculum_keeps_the_order(prepare):
    given = counted([3] * 10), counted([3] * 10, start=10)
    data, _ = prepare(*given, curriculum_sampling=True)
    assert names(read_arrow(data.rows)) == list(range(20))


def test_long_and_short_rows_are_dropped_and_counted(prepare):
    data, events = prepare(counted([5, 1, 4, 3, 2]), sequence_len=4, min_sample_len=3)
    assert names(read_arrow(data.rows)) == [2, 3]
    assert (events.summary["dropped_too_long"], events.summary["dropped_too_short"]) == (1, 2)


def test_truncation(prepare):
    masked_first = ([7, 7, 7, 8], [-100, -100, -100, 8])
    data, events = prepare(
        [*counted([5, 2]), masked_first], sequence_len=3, excess_length_strategy="truncate"
    )
    assert read_arrow(data.rows) == [
        {"input_ids": [0, 0, 0], "labels": [-100, 0, 0]},
        {"input_ids": [1, 1], "labels": [-100, 1]},
    ]
    assert (events.summary["truncated"], events.summary["dropped_untrained"]) == (2, 1)
    assert (events.summary["tokens"], events.summary["trained_tokens"]) == (5, 3)


def test_raise_names_dataset_and_row(prepare):
    with pytest.raises(
        RowError,
        match=r"(?s)2 rows are longer than sequence_len: 4.*dataset 1, row 2: 9 tokens.*dataset 2, row 1: 6 tokens$",
    ):
        prepare(counted([3, 9]), counted([6]), sequence_len=4, excess_length_strategy="raise")


def test_messages_name_the_dataset_by_its_path(prepare):
    entries = [{"path": "/data/talks.jsonl"}, {"path": "owner/more"}]
    settings = {"datasets": entries, "sequence_len": 4, "excess_length_strategy": "raise"}
    with pytest.raises(RowError, match=r"(?s)talks.jsonl, row 2: 9 tokens.*more, row 1: 6 tokens"):
        prepare(counted([3, 9]), counted([6]), **settings)
    with pytest.raises(RowError, match=r"(?s)^1 row is longer.*a.jsonl \(1\), row 1: 9 tokens"):
        prepare(
            counted([9]),
            counted([3]),
            **{**settings, "datasets": [{"path": "x/a.jsonl"}, {"path": "a.jsonl"}]},
        )


UNTRAINED = ([5, 5], [-100, -100])


def test_rows_with_nothing_to_train_on_go_after_shuffling_and_splitting(prepare):
    rows = counted([3] * 10)
    rows[7] = rows[3] = rows[5] = UNTRAINED
    data, events = prepare(rows, shuffle_merged_datasets=True, seed=7, val_set_size=4)
    # Places 2, 4 and 8 of the ten; the border lies where Axolotl has it, which still has them.
    assert names(read_arrow(data.rows)) == [i for i in ORDER_OF_TEN_WITH_SEED_7[:6] if i not in (3, 7)]
    assert names(read_arrow(data.held_out)) == [i for i in ORDER_OF_TEN_WITH_SEED_7[6:] if i != 5]
    assert events.summary["dropped_untrained"] == 3
    packed, _ = prepare(rows, shuffle_merged_datasets=True, seed=7, val_set_size=4, sample_packing=True)
    assert files_of(packed)["held_out.arrow"] == files_of(data)["held_out.arrow"]


def test_of_equal_rows_the_first_is_kept(prepare):
    rows = counted([3, 4, 3, 5, 3])
    relabelled = (rows[0][0], [0, 0, 0])
    one, two = [rows[0], rows[1], rows[0], rows[2]], [rows[1], relabelled, rows[3], rows[0]]
    data, events = prepare(one, two, dataset_exact_deduplication=True)
    assert read_arrow(data.rows) == [
        {"input_ids": ids, "labels": labels}
        for ids, labels in (rows[0], rows[1], rows[2], relabelled, rows[3])
    ]
    assert events.summary["dropped_duplicates"] == 3
    kept, events = prepare(one, two)
    assert len(read_arrow(kept.rows)) == 8 and "dropped_duplicates" not in events.summary


def test_equal_hashes_alone_drop_nothing():
    items = ["a", "b", "a", "c", "b", "d", "a", "e"]
    hashes = np.array([1, 1, 1, 1, 1, 2, 1, 2], np.uint64)
    first = first_of_equal(hashes, lambda one, other: items[one] == items[other])
    assert first.tolist() == [True, True, False, True, False, True, False, True]


def test_rows_that_differ_in_any_one_token_are_all_kept(prepare):
    ((ids, labels),) = counted([50])
    others = [([*ids[:place], 999, *ids[place + 1 :]], labels) for place in range(50)]
    rows = [(ids, labels), *others, ([], []), ([7], [7])]
    data, events = prepare(
        [*rows, rows[20], ([], [])], rows[::-1], dataset_exact_deduplication=True, min_sample_len=0
    )
    # Empty rows are one row, with nothing to train on.
    assert read_arrow(data.rows) == [{"input_ids": ids, "labels": labels} for ids, labels in rows if ids]
    figures = {
        name: events.summary[name] for name in ("dropped_duplicates", "trained_tokens", "dropped_untrained")
    }
    assert figures == {
        "dropped_duplicates": 2 + len(rows),
        "trained_tokens": 51 * 49 + 1,
        "dropped_untrained": 1,
    }


def test_no_equal_row_is_held_out_and_trained_on(prepare):
    data, _ = prepare(counted([3] * 5) * 4, dataset_exact_deduplication=True, val_set_size=0.4)
    assert names(read_arrow(data.rows)) == [0, 1, 2]
    assert names(read_arrow(data.held_out)) == [3, 4]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_shard_is_that_of_the_datasets_library(prepare, index):
    expected = Dataset.from_dict({"row": range(11)}).shard(3, index)["row"]
    data, _ = prepare(counted([3] * 11), dataset_shard_num=3, dataset_shard_idx=index)
    assert names(read_arrow(data.rows)) == list(expected)


def test_a_shard_without_rows_says_so(prepare):
    with pytest.raises(RowError, match="; 2 are in other shards than dataset_shard_idx: 2 of 3"):
        prepare(counted([3, 3]), dataset_shard_num=3, dataset_shard_idx=2)


def test_the_table_says_where_rows_went(prepare):
    one = [*counted([9, 3, 1, 4]), UNTRAINED, counted([3], start=1)[0]]
    _, events = prepare(
        one, counted([3] * 4, start=20), datasets=[{"path": "a.jsonl"}, {"path": "b.jsonl"}], sequence_len=8,
        dataset_exact_deduplication=True, val_set_size=2, sample_packing=True,
    )  # fmt: skip
    tables = {table["title"]: table for table in events.of_type("table")}
    table = tables["Rows by dataset"]
    lines = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert lines[0] == {
        "dataset": "a.jsonl", "rows": 6, "too long": 1, "too short": 1, "duplicates": 1, "nothing to train on": 1,
        "kept": 2, "held out": 0, "tokens": 7, "trained tokens": 5,
    }  # fmt: skip
    assert lines[1]["held out"] == 2 and lines[1]["kept"] == 2
    assert lines[2] == {
        column: "all" if column == "dataset" else lines[0][column] + lines[1][column] for column in lines[0]
    }
    packing = tables["Packing into sequences of 8 tokens"]["rows"]
    assert packing == [["packed", 2, 2.0, 3, "81.25%"], ["a row each", 4, 1.0, 19, "40.62%"]]
    assert (events.summary["padding_tokens"], events.summary["padding_tokens_saved"]) == (3, 16)
    (plot,) = events.of_type("plot")
    # Bars are a quarter token wide up to 8; the row of 9 stands behind that border.
    assert sum(plot["y"]) == 10 and sum(y for x, y in zip(plot["x"], plot["y"], strict=True) if x >= 8) == 1


def test_long_rows_of_a_completion_dataset_are_split(prepare):
    rows = [(list(range(7)), list(range(7))), ([9, 9], [9, 9]), (list(range(20, 26)), list(range(20, 26)))]
    data, events = prepare(rows, splits=True, sequence_len=3)
    ids = [row["input_ids"] for row in read_arrow(data.rows)]
    assert ids == [[0, 1, 2], [3, 4], [5, 6], [9, 9], [20, 21, 22], [23, 24, 25]], "a rest of one is no rest"
    assert [row["labels"] for row in read_arrow(data.rows)] == ids
    assert (events.summary["dropped_too_short"], events.summary["trained_tokens"]) == (0, 15)


@pytest.mark.parametrize("shortest", [0, 2, 3, 8])
@pytest.mark.parametrize("packed", [False, True])
def test_the_end_of_a_split_row_is_trained_whatever_its_length(prepare, shortest, packed):
    rows = [(list(range(100 * n, 100 * n + n)),) * 2 for n in range(max(2, shortest), 30)]
    data, events = prepare(rows, splits=True, sequence_len=8, min_sample_len=shortest, sample_packing=packed)
    found = [row["input_ids"] for row in read_arrow(data.rows)]
    assert all(max(2, shortest) <= len(row) <= 8 for row in found)
    assert {row[-1] for row in found} >= {ids[-1] for ids, _ in rows}
    assert {token for row in found for token in row} == {token for ids, _ in rows for token in ids}
    assert events.summary["dropped_too_short"] == 0
    if shortest < 8:
        assert sum(map(len, found)) == sum(len(ids) for ids, _ in rows), "nothing is repeated"


@pytest.mark.parametrize(("size", "held_out"), [(0.25, 3), (0.01, 1), (4, 4), (0.5, 5)])
def test_held_out_rows_are_the_last(prepare, size, held_out):
    data, events = prepare(counted([3] * 10), val_set_size=size)
    assert names(read_arrow(data.rows)) == list(range(10 - held_out))
    assert names(read_arrow(data.held_out)) == list(range(10 - held_out, 10))
    assert events.summary["held_out_rows"] == held_out


def test_packing(prepare):
    data, events = prepare(counted([6, 4, 7, 3, 5, 5]), sample_packing=True, sequence_len=10)
    packs = [pack["rows"] for pack in read_arrow(data.packs)]
    assert sorted(sorted(pack) for pack in packs) == [[0, 1], [2, 3], [4, 5]]
    assert (events.summary["sequences"], events.summary["packing_efficiency"]) == (3, 1.0)


def test_packing_as_the_keys_say(prepare):
    rows = counted([6, 4, 7, 3, 5, 5, 2, 2])
    sizes = {"sample_packing": True, "sequence_len": 10}

    def packs(**settings):
        return [pack["rows"] for pack in read_arrow(prepare(rows, **sizes, **settings)[0].packs)]

    assert packs(sample_packing_sequentially=True) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert packs(sample_packing_sequentially=True, sample_packing_bin_size=1) == [[i] for i in range(8)]
    assert packs(sample_packing_sequentially=True, sample_packing_group_size=3) == [
        [0, 1],
        [2],
        [3, 4],
        [5],
        [6, 7],
    ]
    assert max(len(pack) for pack in packs(sample_packing_bin_size=2)) == 2
    assert all(max(pack) // 3 == min(pack) // 3 for pack in packs(sample_packing_group_size=3))


def test_the_same_inputs_are_the_same_bytes(prepare):
    rows = counted([n % 40 + 2 for n in range(3000)])
    settings = {
        "sample_packing": True,
        "sequence_len": 64,
        "shuffle_merged_datasets": True,
        "val_set_size": 0.1,
    }
    assert files_of(prepare(rows, **settings)[0]) == files_of(prepare(rows, **settings)[0])


@pytest.mark.parametrize(
    ("lengths", "settings", "message"),
    [
        ([9, 9, 1], {"sequence_len": 4}, "of 3 rows 2 are longer than sequence_len: 4, 1 are shorter"),
        ([1, 1], {"min_sample_len": 1}, "2 have nothing to train on$"),
        ([3, 3], {"val_set_size": 2}, "would hold out 2 of 2 rows"),
        ([3], {"val_set_size": 0.1}, "would hold out 1 of 1 rows"),
    ],
)
def test_nothing_left(prepare, lengths, settings, message):
    with pytest.raises(RowError, match=message):
        prepare(counted(lengths), **settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_set_size": 1}, "neither a fraction below 1 nor a whole number"),
        ({"val_set_size": 2.5}, "neither a fraction below 1 nor a whole number"),
        ({"val_set_size": -0.1}, "val_set_size"),
        ({"min_sample_len": 600}, "more than sequence_len: 512"),
        ({"curriculum_sampling": True, "shuffle_merged_datasets": True}, "keep one"),
        ({"excess_length_strategy": "cut"}, "excess_length_strategy"),
        ({"dataset_shard_num": 2}, "need each other"),
        ({"dataset_shard_idx": 0}, "need each other"),
        ({"dataset_shard_num": 2, "dataset_shard_idx": 2}, "not one of dataset_shard_num: 2 parts"),
        ({"skip_prepare_dataset": True}, "skip_prepare_dataset: true is not supported"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainingDataConfig(**settings)
