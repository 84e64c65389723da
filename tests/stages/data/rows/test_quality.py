"""Figures of the quality of rows: in each stage that knows them, as one table and as figures of the summary."""

import pytest
from support.rows import Events, run_stage
from support.token_data import counted, write_tokenized

from tunemill.stages.data.evaluation_data.config import EvaluationDataConfig
from tunemill.stages.data.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.data.rows.quality import Figure, say_quality
from tunemill.stages.data.training_data.config import TrainingDataConfig
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.report import Report


def row(ids, trained):
    return ids, [token if flag else -100 for token, flag in zip(ids, trained, strict=True)]


def quality(events):
    (table,) = (event for event in events.of_type("table") if event["title"] == "Quality")
    assert table["columns"] == ["figure", "count", "of", "share"]
    return {line[0].split(" (")[0]: tuple(line[1:]) for line in table["rows"]}


@pytest.fixture
def prepare(tmp_path):
    def run(rows, name="train", splits=False, **settings):
        given = [write_tokenized(tmp_path / name, rows, splits=splits, batch=2)]
        config = TrainingDataConfig(shuffle_merged_datasets=False, **settings)
        return run_stage(TRAINING_DATA, config, tmp_path / f"{name}-out", tokenized=given)

    return run


def test_a_figure_that_is_nothing_to_look_at_is_in_the_table_alone():
    events = Events()
    figures = [Figure("all", 3, 3), Figure("none", 0, 0, "none"), Figure("some", 1, 3, "some")]
    say_quality(figures, Report(events.sent.append))
    assert events.summary == {"some": 1}
    assert quality(events) == {"all": (3, 3, 1.0), "none": (0, 0, 0.0), "some": (1, 3, 0.333333)}


def test_rows_that_occur_again(prepare):
    rows = [*counted([3, 4]), *counted([3]), *counted([3])]
    _, events = prepare(rows)
    assert quality(events)["rows that occur again"] == (2, 4, 0.5)
    assert events.summary["repeated_rows"] == 2
    _, events = prepare(rows, "again", dataset_exact_deduplication=True)
    assert quality(events)["rows that occur again"] == (0, 2, 0.0)
    assert events.summary["dropped_duplicates"] == 2 and "repeated_rows" not in events.summary


ANSWERS = {
    "through the answer": (row([1, 2, 3, 4, 5], [0, 0, 1, 1, 1]), 1),
    "before the answer, with one before it": (row([1, 2, 3, 4, 5], [1, 0, 0, 1, 1]), 0),
    "behind the answer": (row([1, 2, 3, 4, 5], [0, 1, 1, 0, 0]), 0),
    "not at all": (row([1, 2, 3], [0, 1, 1]), 0),
}


@pytest.mark.parametrize("where", ANSWERS)
def test_rows_that_are_cut(prepare, where):
    given, cut = ANSWERS[where]
    _, events = prepare(
        [row([9, 9], [0, 1]), row([8, 8], [0, 1]), given], sequence_len=3, excess_length_strategy="truncate"
    )
    assert quality(events)["rows cut in the middle of an answer"][:2] == (cut, 3)
    assert events.summary.get("rows_cut_in_answer", 0) == cut


def test_rows_that_become_several_lose_no_answer(prepare):
    _, events = prepare([row([1, 2, 3, 4, 5], [1] * 5)], splits=True, sequence_len=3)
    assert quality(events)["rows cut in the middle of an answer"][0] == 0


def test_held_out_rows_that_are_trained_on(tmp_path, prepare):
    rows = [*counted([3, 4, 5]), *counted([3]), *counted([6], start=40)]
    data, _ = prepare(rows, val_set_size=2)

    def held_out(name, **settings):
        return run_stage(
            EVALUATION_DATA,
            EvaluationDataConfig(**settings),
            tmp_path / name,
            tokenized=None,
            training_data=data,
        )

    _, events = held_out("one")
    assert quality(events)["rows that are trained on too"] == (1, 2, 0.5)
    assert events.summary["rows_trained_on"] == 1 and events.summary["rows"] == 2
    _, events = held_out("other", dataset_exact_deduplication=True)
    assert events.summary["dropped_duplicates"] == 1 and "rows_trained_on" not in events.summary


def near(count, change, start):
    """Rows of 40 tokens in pairs, the second with `change` tokens of its own at its end."""
    rows = []
    for number in range(count):
        ids = list(range(start + number * 100, start + number * 100 + 40))
        other = [*ids[: 40 - change], *range(start + number * 100 + 50, start + number * 100 + 50 + change)]
        rows += [(ids, ids), (other, other)]
    return rows


def test_rows_that_are_nearly_alike(prepare):
    rows = [*near(30, 2, 10_000), *near(30, 25, 50_000), *counted([3, 3])]
    _, events = prepare(rows, data_report="full")
    count, of, _ = quality(events)["rows nearly like another one"]
    assert 27 <= count <= 30 and of == len(rows)
    (table,) = (event for event in events.of_type("table") if event["title"] == "Rows that are nearly alike")
    assert len(table["rows"]) == 20
    assert all(row % 2 == 0 and like == row - 1 for _, row, _, like in table["rows"])
    _, events = prepare(rows, "cheap")
    assert "rows nearly like another one" not in quality(events)
    assert not [event for event in events.of_type("table") if "alike" in event["title"]]


def test_what_all_rows_share_does_not_make_them_alike(prepare):
    system = list(range(200))
    rows = [
        ([*system, *own], [*system, *own])
        for own in ([1000 + i * 20 + j for j in range(20)] for i in range(60))
    ]
    _, events = prepare(rows, data_report="full")
    assert quality(events)["rows nearly like another one"][0] == 0


def test_held_out_rows_that_are_nearly_like_those_that_are_trained_on(tmp_path, prepare):
    pairs = near(20, 2, 10_000)
    data, _ = prepare(pairs[::2])
    given = [write_tokenized(tmp_path / "test", [*pairs[1::2], *counted([9])])]
    config = EvaluationDataConfig(data_report="full")
    _, events = run_stage(EVALUATION_DATA, config, tmp_path / "out", tokenized=given, training_data=data)
    count, of, _ = quality(events)["rows nearly like one that is trained on"]
    assert 17 <= count <= 20 and of == 21
    assert events.summary["rows_nearly_trained_on"] == count
    assert quality(events)["rows that are trained on too"][0] == 0
