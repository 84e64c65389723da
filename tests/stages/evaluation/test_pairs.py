"""Rows of two evaluations side by side: by their ids, or by their numbers in the same data; metrics over both."""

import pytest

from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.pairs import main_metric, measured, paired
from tunemill.stages.evaluation.scored import Scored, read_scored
from tunemill.stages.evaluation.statistics.comparison import compare

SURE = {
    "eval_loss": {"values": "loss", "weights": "loss_tokens"},
    "perplexity": {"low": 1},
    "right": {"values": "right"},
}


def rows_of(rights, first=0, **more):
    return [
        {
            "row": place,
            "id": f"{first + place:x}",
            "loss": (place + right) / 4,
            "loss_tokens": place + 1,
            "right": right,
        }
        | more
        for place, right in enumerate(rights)
    ]


def scored(rows, intervals=SURE):
    return Scored({}, intervals, rows)


def found(one, other, **more):
    pairs = paired(one, other, same_data=False, **more)
    return {item.metric: item for item in measured(one, other, pairs)}


def test_rows_are_paired_by_what_they_ask_wherever_they_stand():
    one, other = scored(rows_of([True] * 5)), scored(rows_of([False] * 6, first=2)[::-1])
    pairs = paired(one, other, same_data=False)
    assert (pairs.by, pairs.only_one, pairs.only_other) == ("id", 2, 3)
    assert [(ours["id"], theirs["id"]) for ours, theirs in pairs.rows] == [("2", "2"), ("3", "3"), ("4", "4")]


def test_a_question_that_is_there_twice_is_paired_twice_and_counts_once():
    one, other = (
        scored([{**row, "id": str(row["row"] // 2)} for row in rows_of(rights)])
        for rights in ([False] * 6, [True] * 6)
    )
    pairs = paired(one, other, same_data=False)
    assert [(ours["row"], theirs["row"]) for ours, theirs in pairs.rows] == [(row, row) for row in range(6)]
    assert found(one, other)["right"].comparison.groups == 3


def test_rows_without_ids_are_paired_by_number_where_the_data_is_the_same():
    old = scored(
        [{"row": row["row"], "loss": row["loss"], "right": row["right"]} for row in rows_of([True] * 3)], {}
    )
    new = scored(rows_of([False] * 3))
    for pair in ((old, new), (new, old), (old, old)):
        assert paired(*pair, same_data=False) is None
        pairs = paired(*pair, same_data=True)
        assert pairs.by == "row" and len(pairs.rows) == 3
        names = [item.metric for item in measured(*pair, pairs)]
        assert names == (["loss", "right"] if pair == (old, old) else ["eval_loss", "right"])
    assert paired(new, scored(rows_of([True], first=9)), same_data=False) is None, "no id is shared"


def test_a_metric_is_compared_as_it_is_the_mean_of_rows():
    one, other = scored(rows_of([False, True, False, False])), scored(rows_of([True] * 4))
    losses = [[row["loss"] for row in side.rows] for side in (one, other)]
    both = found(one, other)
    assert both.keys() == {"eval_loss", "right"}
    assert both["eval_loss"].comparison == compare(*losses, weights=[1, 2, 3, 4])
    assert both["eval_loss"].better == "lower" and both["right"].comparison.higher == 3
    assert main_metric(list(both.values())) is both["right"]
    gains = [both["right"].gain(pair) for pair in paired(one, other, same_data=False).rows]
    assert gains == [1.0, 0.0, 1.0, 1.0]
    assert [both["eval_loss"].gain(pair) < 0 for pair in paired(one, other, same_data=False).rows][1] is False


def test_weights_that_differ_are_none_and_groups_are_units():
    one, other = scored(rows_of([False] * 4, group="a")), scored(rows_of([True] * 4, loss_tokens=1))
    both = found(one, other)
    assert both["eval_loss"].weights is None
    assert both["right"].comparison.groups == 1


def test_rows_that_a_metric_does_not_apply_to_are_left_out():
    one = scored([{**row, "right": None if row["row"] else True} for row in rows_of([True] * 4)])
    both = found(one, scored(rows_of([False] * 4)))
    assert both["right"].comparison.rows == 1
    nothing = scored([{**row, "right": None} for row in rows_of([True] * 4)])
    assert "right" not in found(nothing, one)


@pytest.mark.parametrize("text", ["{", "[]", '{"row": 1}\n3\n'])
def test_damage_is_named(tmp_path, text):
    (tmp_path / "metrics.json").write_text("{}")
    (tmp_path / "predictions.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"predictions.jsonl:\d: is no JSON"):
        read_scored(tmp_path)
