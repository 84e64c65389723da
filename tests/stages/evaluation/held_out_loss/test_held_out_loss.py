"""The loss of an entry of its own is that of the evaluation on the same rows."""

import json

import pytest
from support.evaluated import run
from support.tiny_model import Heard, evaluation_data, make_model, random_rows, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.evaluation.held_out_loss.body import held_out_loss
from tunemill.stages.evaluation.held_out_loss.config import HeldOutLossConfig


def test_it_is_that_of_the_evaluation(tmp_path):
    model, data = make_model(tmp_path / "model"), evaluation_data(tmp_path / "rows", random_rows(5))
    expected, predictions, _ = run(tmp_path / "all", model, data, evaluation={"exact_match": False})
    out, heard = workspace(tmp_path / "loss"), Heard()
    held_out_loss(HeldOutLossConfig(batch_size=2), Model(model), None, data, out, heard.report)
    metrics = json.loads((out.data / "metrics.json").read_text())
    assert metrics == {
        name: pytest.approx(expected[name], rel=1e-5) for name in ("eval_loss", "perplexity", "rows")
    }
    lines = [json.loads(line) for line in (out.data / "predictions.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == pytest.approx([one["loss"] for one in predictions], abs=1e-5)
    assert json.loads((out.data / "intervals.json").read_text()).keys() == {"eval_loss", "perplexity"}
