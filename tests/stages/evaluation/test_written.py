"""The files of an evaluation: intervals of what is a mean over rows, and rows named by what they ask."""

import json
import math
from dataclasses import replace

from support.tiny_model import Heard

from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.statistics.intervals import interval
from tunemill.stages.evaluation.written import Mean, interval_of, write_scores

ROWS = [
    {"row": row, "id": f"{row:016x}", "exact_match": row > 1, "loss": row / 4, "tokens": row}
    for row in range(8)
]
MEANS = {
    "exact_match": Mean("exact_match"),
    "eval_loss": Mean("loss", "tokens"),
    "not_computed": Mean("loss"),
}


def test_every_mean_gets_its_interval_and_says_what_it_is_the_mean_of(tmp_path):
    heard = Heard()
    metrics = {"exact_match": 0.75, "eval_loss": 1.25, "rows": 8}
    write_scores(metrics, ROWS, MEANS, tmp_path, heard.report)
    report = EvaluationReport(tmp_path)
    assert json.loads(report.metrics.read_text()) == metrics == heard.summary
    assert [json.loads(line) for line in report.predictions.read_text().splitlines()] == ROWS
    found = json.loads(report.intervals.read_text())
    right = interval([False] * 2 + [True] * 6).as_json()
    losses = interval([row / 4 for row in range(8)], weights=list(range(8))).as_json()
    assert found == {
        "exact_match": {**right, "values": "exact_match"},
        "eval_loss": {**losses, "values": "loss", "weights": "tokens"},
    }
    assert losses["low"] < 1.25 < losses["high"]


def test_rows_of_a_group_or_of_one_question_are_drawn_together():
    mean = MEANS["exact_match"]
    grouped = interval_of([{**row, "group": row["row"] // 2} for row in ROWS], mean)
    twice = interval_of([{**row, "id": str(row["row"] // 2)} for row in ROWS], mean)
    assert grouped == twice == interval([0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3])
    assert interval_of([{**row, "id": None} for row in ROWS], mean) == interval_of(ROWS, mean)


def test_rows_that_a_metric_does_not_apply_to_do_not_count():
    some = [{**row, "exact_match": None if row["row"] < 4 else True} for row in ROWS]
    assert interval_of(some, MEANS["exact_match"]) == interval([1] * 4)
    assert interval_of([{"loss": None}], Mean("loss")) is None
    assert interval_of([{"loss": math.inf}, {"loss": 1.0}], Mean("loss")) is None


def test_what_is_made_of_a_mean_is_made_of_its_ends():
    plain = interval_of(ROWS, Mean("loss"))
    ends = replace(plain, low=math.exp(plain.low), high=math.exp(plain.high))
    assert interval_of(ROWS, Mean("loss", through=math.exp)) == ends


def test_a_row_is_named_by_its_texts():
    assert row_id("2 + 3", "5") == row_id(" 2 + 3\n", "5 ") == "3908f14305914ed2"
    assert len({row_id("a", "b"), row_id("ab"), row_id("ab", ""), row_id("b", "a")}) == 4
