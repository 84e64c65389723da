"""Rows that are never trained on."""

import pytest
from pydantic import ValidationError
from support.rows import read_arrow, run_stage
from support.token_data import counted, write_tokenized

from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.errors import RowError, SettingError


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
    assert events.summary == {
        "rows": 3,
        "dropped_too_long": 1,
        "dropped_too_short": 0,
        "truncated": 0,
        "dropped_untrained": 0,
        "tokens": 9,
        "trained_tokens": 6,
    }
    assert read_arrow(data.rows)[1] == {
        "input_ids": [2, 2], "labels": [-100, 2], "roles": ["assistant"], "role_ends": [2],
    }  # fmt: skip


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


def test_the_pieces_of_a_row_know_whose_their_tokens_are(tmp_path):
    rows = [(list(range(8)), list(range(8)))] * 2
    given = [write_tokenized(tmp_path / "a", rows, splits=True, user_tokens=4)]
    data, _ = prepare(tmp_path, tokenized=given, sequence_len=3)
    found = [(row["input_ids"], row["roles"], row["role_ends"]) for row in read_arrow(data.rows)]
    pieces = [
        ([0, 1, 2], ["user"], [3]),
        ([3, 4, 5], ["user", "assistant"], [1, 3]),
        ([6, 7], ["assistant"], [2]),
    ]
    assert found == pieces * 2


def test_nothing_was_set_aside(tmp_path):
    training_data = trained_on(tmp_path, counted([3] * 10))
    with pytest.raises(SettingError, match="set test_datasets or val_set_size"):
        prepare(tmp_path, training_data=training_data)


def test_every_row_is_too_long(tmp_path):
    given = [write_tokenized(tmp_path / "a", counted([8, 9]))]
    with pytest.raises(RowError, match=r"of 2 rows 2 are longer than sequence_len: 5 \(raise eval_seq"):
        prepare(tmp_path, tokenized=given, sequence_len=5)


def test_rows_without_a_token_to_score_are_dropped(tmp_path):
    given = [write_tokenized(tmp_path / "a", [*counted([3]), ([7, 7], [-100, -100]), ([8], [8])])]
    data, events = prepare(tmp_path, tokenized=given)
    assert names(data) == [0]
    assert (events.summary["dropped_untrained"], events.summary["dropped_too_short"]) == (1, 1)


def test_long_rows_are_truncated_or_refused_as_asked(tmp_path):
    given = [write_tokenized(tmp_path / "a", [*counted([3, 9]), ([7] * 6, [-100] * 5 + [7])])]
    settings = {"sequence_len": 9, "eval_sequence_len": 4}
    data, events = prepare(tmp_path / "1", tokenized=given, **settings, excess_length_strategy="truncate")
    assert [len(row["labels"]) for row in read_arrow(data.rows)] == [3, 4]
    assert (events.summary["truncated"], events.summary["dropped_untrained"]) == (2, 1)
    with pytest.raises(RowError, match=r"(?s)longer than eval_sequence_len: 4.*exam.jsonl, row 2: 9 tokens"):
        prepare(
            tmp_path / "2", tokenized=given, **settings, excess_length_strategy="raise",
            test_datasets=[{"path": "exam.jsonl"}],
        )  # fmt: skip


def test_rows_that_are_trained_on_are_dropped_when_asked(tmp_path):
    trained = trained_on(tmp_path, counted([3, 4, 5, 9]), sequence_len=8)
    given = [write_tokenized(tmp_path / "a", [*counted([3, 3, 5, 9]), counted([6], start=4)[0]] * 2)]
    inputs = {"tokenized": given, "training_data": trained}
    data, events = prepare(tmp_path / "1", **inputs, dataset_exact_deduplication=True)
    # Row 1 has other tokens than that of the training data; row 3 was too long to be trained on.
    assert [len(row["labels"]) for row in read_arrow(data.rows)] == [3, 9, 6]
    assert names(data) == [1, 3, 4]
    assert events.summary["dropped_duplicates"] == 7
    (table,) = events.of_type("table")
    line = dict(zip(table["columns"], table["rows"][0], strict=True))
    assert (line["duplicates"], line["trained on"]) == (5, 2)
    assert len(names(prepare(tmp_path / "2", **inputs)[0])) == 10
    with pytest.raises(RowError, match=r"of 1 rows 1 are also trained on"):
        prepare(
            tmp_path / "3", tokenized=[write_tokenized(tmp_path / "b", counted([3]))], training_data=trained,
            dataset_exact_deduplication=True,
        )  # fmt: skip


LINE = list(range(20, 40))


def masked(ids, count):
    """A row whose first `count` tokens are not trained."""
    return ids, [-100] * count + ids[count:]


def left(tmp_path, rows, trained_rows, *, splits=False, strategy="truncate", trained_len=512, **settings):
    """The rows that are evaluated on beside rows that are trained on."""
    lengths = {"excess_length_strategy": strategy, "sequence_len": trained_len}
    data = trained_on(tmp_path, trained_rows, **lengths)
    given = [write_tokenized(tmp_path / "test", [*rows, ([7, 8], [-100, 8])], splits=splits)]
    prepared, _ = prepare(
        tmp_path, tokenized=given, training_data=data, dataset_exact_deduplication=True, **lengths, **settings
    )
    found = [row["input_ids"] for row in read_arrow(prepared.rows)]
    assert found.pop() == [7, 8]
    return found


def test_a_row_with_other_labels_is_trained_on_all_the_same(tmp_path):
    other = [50, 51, 52]
    assert left(tmp_path, [masked(LINE, 3), masked(other, 1)], [masked(LINE, 1)]) == [other]


@pytest.mark.parametrize(("trained_len", "tested_len"), [(20, 6), (9, 6), (6, 9), (6, 20), (6, 6)])
def test_a_row_that_lost_its_end_is_trained_on_all_the_same(tmp_path, trained_len, tested_len):
    other = [*LINE[:4], 90, *LINE[5:]]
    rows = left(
        tmp_path, [masked(LINE, 1), masked(other, 1)], [masked(LINE, 1)],
        trained_len=trained_len, eval_sequence_len=tested_len,
    )  # fmt: skip
    assert rows == [other[:tested_len]]


def test_what_is_left_of_a_row_is_trained_on_where_a_trained_row_goes_on_otherwise(tmp_path):
    rows = [masked([*LINE[:6], 90, 91], 1), masked([*LINE[:5], 90, 91], 1)]
    assert left(tmp_path, rows, [masked(LINE, 1)], eval_sequence_len=6) == [[*LINE[:5], 90]]


@pytest.mark.parametrize("tested_len", [6, 12])
def test_the_beginning_of_a_row_is_another_row_where_nothing_was_cut(tmp_path, tested_len):
    short, long = masked(LINE[:6], 1), masked([*range(60, 72)], 1)
    rows = left(
        tmp_path, [short, long], [masked(LINE, 1), masked(long[0][:5], 1)], eval_sequence_len=tested_len
    )
    assert rows == [short[0], long[0][:tested_len]]


def test_a_piece_that_is_trained_on_as_another_rows_is_left_out(tmp_path):
    rows = left(
        tmp_path, [masked([1, 2, 3, *LINE[:3]], 0)], [masked(LINE[:3], 0)], splits=True, trained_len=3
    )
    assert rows == [[1, 2, 3]]


@pytest.mark.parametrize(("trained_len", "tested_len"), [(8, 5), (5, 8), (20, 5), (8, 20)])
def test_all_pieces_of_a_row_are_trained_on(tmp_path, trained_len, tested_len):
    other = list(range(60, 80))
    rows = left(
        tmp_path, [masked(other, 0), masked(LINE, 0)], [masked(LINE, 0)], splits=True,
        trained_len=trained_len, eval_sequence_len=tested_len,
    )  # fmt: skip
    assert [token for row in rows for token in row] == other


def test_held_out_rows_are_compared_with_those_that_are_trained_on(tmp_path):
    other = [50, 51, 52]
    rows = [masked(LINE, 1), masked(other, 1), masked(LINE, 3)]
    trained = trained_on(tmp_path, rows, val_set_size=2, dataset_exact_deduplication=True)
    data, events = prepare(tmp_path / "1", training_data=trained, dataset_exact_deduplication=True)
    assert [row["input_ids"] for row in read_arrow(data.rows)] == [other]
    assert events.summary["dropped_duplicates"] == 1
    assert len(read_arrow(prepare(tmp_path / "2", training_data=trained)[0].rows)) == 2


def test_a_shortest_row_longer_than_the_longest_is_refused():
    with pytest.raises(ValidationError, match="more than eval_sequence_len: 3"):
        EvaluationDataConfig(min_sample_len=4, eval_sequence_len=3)
