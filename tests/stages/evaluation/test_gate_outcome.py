"""A gate is passed, failed, or cannot be told, by the files of evaluations alone."""

import json
import math
import random

import pytest

from tunemill.stages.evaluation.gate import Gate
from tunemill.stages.evaluation.gate_outcome import failing, outcome, outcome_of
from tunemill.stages.evaluation.statistics.comparison import compare
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.report import Report


def evaluation(folder, values, metric="exact_match", ids=None, **metrics):
    """The files of an evaluation with these values, one a row."""
    folder.mkdir(parents=True, exist_ok=True)
    mean = sum(values) / len(values)
    (folder / "metrics.json").write_text(json.dumps({metric: mean, "rows": len(values), **metrics}))
    with (folder / "predictions.jsonl").open("w") as file:
        for row, value in enumerate(values):
            name = ids[row] if ids else f"{row:016x}"
            file.write(json.dumps({"row": row, "id": name, metric: value}) + "\n")
    return folder


def shares(right, rows):
    return [row < right for row in range(rows)]


def gate(**keys):
    return Gate(**{"metric": "exact_match", "of": "quantized", **keys})


@pytest.mark.parametrize(
    ("right", "rows", "bound", "state"),
    [
        (960, 1000, {"min": 0.9}, "passed"),
        (840, 1000, {"min": 0.9}, "failed"),
        (910, 1000, {"min": 0.9}, "cannot tell"),
        # All right, and still too few to tell: Wilson's interval of 20 of 20 begins at 0.839.
        (20, 20, {"min": 0.9}, "cannot tell"),
        (20, 20, {"min": 0.8}, "passed"),
        (840, 1000, {"max": 0.9}, "passed"),
        (960, 1000, {"max": 0.9}, "failed"),
        (890, 1000, {"max": 0.9}, "cannot tell"),
        # Of two bounds the worse outcome counts.
        (500, 1000, {"min": 0.4, "max": 0.45}, "failed"),
    ],
)
def test_an_interval_on_one_side_of_the_bound_tells(tmp_path, right, rows, bound, state):
    found = outcome(gate(**bound), evaluation(tmp_path / "of", shares(right, rows)))
    assert found.state == state and found.blocks == (state != "passed")
    assert found.numbers["rows"] == rows and found.numbers["exact_match"] == right / rows
    assert found.numbers["low"] < right / rows + 1e-9 and found.numbers["high"] > right / rows - 1e-9
    assert f"{rows} rows" in found.text and ("too few rows" in found.text) == (state == "cannot tell")


def test_the_yaml_says_whether_not_knowing_blocks_and_how_sure_is_sure(tmp_path):
    folder = evaluation(tmp_path / "of", shares(91, 100))
    assert outcome(gate(min=0.85), folder).state == "cannot tell"
    found = outcome(gate(min=0.85, cannot_tell="pass"), folder)
    assert (found.state, found.blocks) == ("cannot tell", False)
    # 91 of 100 at 80%: Wilson's interval begins at 0.866.
    found = outcome(gate(min=0.85, confidence=0.8), folder)
    assert found.state == "passed" and found.numbers["low"] == pytest.approx(0.8655, abs=1e-3)


def test_a_stored_interval_counts_where_it_is_as_sure_as_asked(tmp_path):
    folder = evaluation(tmp_path / "of", shares(91, 100))
    stored = {
        "low": 0.5,
        "high": 0.6,
        "confidence": 0.95,
        "method": "told",
        "rows": 7,
        "values": "exact_match",
    }
    (folder / "intervals.json").write_text(json.dumps({"exact_match": stored}))
    found = outcome(gate(min=0.4), folder)
    assert found.state == "passed" and (found.numbers["low"], found.numbers["rows"]) == (0.5, 7)
    assert outcome(gate(min=0.4, confidence=0.9), folder).numbers["rows"] == 100


def test_a_figure_that_is_no_mean_of_rows_is_compared_as_it_is(tmp_path):
    folder = evaluation(tmp_path / "of", shares(5, 10), perplexity=3.5)
    found = outcome(gate(metric="perplexity", max=3.5), folder)
    assert found.state == "passed" and "without an interval" in found.text
    assert outcome(gate(metric="perplexity", max=3.4), folder).state == "failed"


def test_a_drop_is_told_on_the_rows_that_both_have(tmp_path):
    before = evaluation(tmp_path / "trained", shares(900, 1000))
    paired = [row >= 5 and row < 900 for row in range(1000)]
    drop = gate(max_drop_from="trained", margin=0.02)
    found = outcome(drop, evaluation(tmp_path / "close", paired), before)
    assert found.state == "passed" and found.numbers["drop"] == pytest.approx(0.005)
    assert found.numbers["shared_rows"] == 1000 and found.numbers["drop_high"] < 0.02
    # The same share of right answers on other rows tells much less.
    other = [row >= 105 for row in range(1000)]
    found = outcome(drop, evaluation(tmp_path / "other", other), before)
    assert found.numbers["drop"] == pytest.approx(0.005) and found.state == "cannot tell"
    far = outcome(drop, evaluation(tmp_path / "far", shares(800, 1000)), before)
    assert far.state == "failed" and "worse by 0.1" in far.text
    better = outcome(drop, evaluation(tmp_path / "better", shares(950, 1000)), before)
    assert better.state == "passed" and better.numbers["drop"] == pytest.approx(-0.05)
    low, high = -better.numbers["drop_high"], -better.numbers["drop_low"]
    assert f"better by 0.05 (95% interval {low:.4g} to {high:.4g}, 1000 shared rows)" in better.text
    assert better.text.endswith("is within the bound, at most 0.02 worse") and 0 < low < 0.05 < high


def test_the_interval_of_a_drop_of_shares_is_that_of_the_comparison(tmp_path):
    before, now = shares(90, 100), [row < 3 or 12 < row < 90 for row in range(100)]
    folder = evaluation(tmp_path / "trained", before)
    found = outcome(gate(max_drop_from="trained"), evaluation(tmp_path / "now", now), folder).numbers
    same = compare(now, before)
    assert same.method.startswith("McNemar") and same.difference == pytest.approx(0.1)
    assert [found["drop"], found["drop_low"], found["drop_high"]] == [same.difference, same.low, same.high]
    # Four rows that say the same do not tell that two models are alike.
    four = evaluation(tmp_path / "four", shares(2, 4))
    assert outcome(gate(max_drop_from="trained", margin=0.02), four, four).state == "cannot tell"


def test_rows_are_paired_by_their_ids_not_by_their_places(tmp_path):
    ids = [f"{row:016x}" for row in range(400)]
    before = evaluation(tmp_path / "trained", shares(200, 400), ids=ids)
    turned = evaluation(tmp_path / "turned", shares(200, 400)[::-1], ids=ids[::-1])
    found = outcome(gate(max_drop_from="trained", margin=0.02), turned, before)
    assert found.state == "passed" and found.numbers["drop"] == 0
    foreign = evaluation(tmp_path / "foreign", shares(4, 8), ids=[f"x{row}" for row in range(8)])
    found = outcome(gate(max_drop_from="trained"), foreign, before)
    assert found.state == "failed" and "no row in common" in found.text


def losses(folder, values, tokens):
    """An evaluation whose loss is a mean over tokens, with the perplexity of that."""
    rows = [
        {"row": row, "id": f"{row:016x}", "loss": value, "loss_tokens": count}
        for row, (value, count) in enumerate(zip(values, tokens, strict=True))
    ]
    mean = sum(value * count for value, count in zip(values, tokens, strict=True)) / sum(tokens)
    metrics = {"eval_loss": mean, "perplexity": math.exp(mean)}
    folder.mkdir()
    means = {
        "eval_loss": Mean("loss", "loss_tokens"),
        "perplexity": Mean("loss", "loss_tokens", math.exp),
    }
    write_scores(metrics, rows, means, folder, Report([].append))
    return folder


def test_a_mean_over_tokens_is_weighted_however_sure_it_has_to_be(tmp_path):
    draw = random.Random(0)
    tokens = [draw.randrange(1, 50) for _ in range(200)]
    values = [draw.gauss(2, 0.3) + count / 100 for count in tokens]
    before = losses(tmp_path / "before", values, tokens)
    after = losses(tmp_path / "after", [value + draw.gauss(0.01, 0.01) for value in values], tokens)
    wide, narrow = (
        outcome(gate(metric="eval_loss", max=2.5, confidence=sure), before).numbers for sure in (0.95, 0.8)
    )
    assert wide["low"] < narrow["low"] < narrow["eval_loss"] < narrow["high"] < wide["high"]
    loss = gate(metric="eval_loss", max_drop_from="trained", margin=0.02)
    found = outcome(loss, after, before)
    assert found.state == "passed" and found.numbers["shared_rows"] == 200
    assert found.numbers["drop"] == pytest.approx(
        found.numbers["eval_loss"] - found.numbers["eval_loss_of_trained"]
    )
    # The interval of the difference is far narrower than that of either.
    assert found.numbers["drop_high"] - found.numbers["drop_low"] < (wide["high"] - wide["low"]) / 5
    # A perplexity is no mean, and its interval is as sure as it was stored.
    found = outcome(gate(metric="perplexity", max=100, confidence=0.8), before)
    assert found.state == "passed" and "95% interval" in found.text


def test_what_cannot_be_read_fails_with_the_file_and_the_figure(tmp_path):
    folder = evaluation(tmp_path / "of", shares(5, 10), bleu=None)
    found = outcome(gate(metric="bleu", min=0.1), folder)
    assert found.blocks and found.text == "bleu of evaluation_of_quantized is null, which is no finite number"
    predictions = folder / "predictions.jsonl"
    for damage in (b"\xff\xfe\x00", b'{"row": 0, "exact_', b"[]"):
        predictions.write_bytes(predictions.read_bytes().splitlines(keepends=True)[0] + damage)
        found = outcome(gate(min=0.1), folder)
        assert found.state == "failed" and found.blocks and "predictions.jsonl:2: is no JSON" in found.text
    (folder / "metrics.json").write_bytes(b"{")
    assert "metrics.json: is no JSON" in outcome(gate(min=0.1), folder).text


def test_of_a_loss_a_rise_is_a_drop(tmp_path):
    before = evaluation(tmp_path / "trained", shares(5, 10), perplexity=3.0)
    now = evaluation(tmp_path / "quantized", shares(5, 10), perplexity=3.3)
    rise = gate(metric="perplexity", max_drop_from="trained", margin=0.2)
    assert outcome(rise, now, before).state == "failed"
    assert outcome(rise, before, now).state == "passed"


def test_what_is_missing_does_not_pass(tmp_path):
    folder = evaluation(tmp_path / "of", shares(5, 10))
    found = outcome(gate(metric="bleu", min=0.1), folder)
    assert found.state == "failed" and "has no figure bleu. It has exact_match, rows" in found.text
    asked = gate(min=0.1, max_drop_from="trained")
    unknown = outcome_of(asked, {"evaluation_of_quantized": folder})
    assert unknown.state == "not known" and unknown.text == "evaluation_of_trained is not there"
    assert failing([gate(min=0.1)], {"evaluation_of_quantized": folder}) == []
    assert [one.state for one in failing([gate(min=0.9), asked], {"evaluation_of_quantized": folder})] == [
        "failed",
        "not known",
    ]
    single = evaluation(tmp_path / "one", [0.5], metric="score")
    assert outcome(gate(metric="score", min=0.1), single).state == "cannot tell"
    assert json.loads(json.dumps(outcome(gate(metric="score", min=0.1), single).as_json()))
