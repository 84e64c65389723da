"""Figures of reward models by hand, and their scores whatever shares a batch."""

import json
import math
from pathlib import Path

import pytest
import torch
from support.pairs import reward_data, thanked
from support.tiny_model import Heard, make_model, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import RowError, SettingError
from tunemill.stages.evaluation.rewards.body import evaluate
from tunemill.stages.evaluation.rewards.config import RewardEvaluationConfig
from tunemill.stages.evaluation.rewards.figures import PairScore, figures_of
from tunemill.stages.models.heads import Head
from tunemill.stages.models.loading_body import load_model


def test_figures_by_hand() -> None:
    found = figures_of([PairScore(2.0, 1.0), PairScore(0.0, 0.0), PairScore(-1.0, 3.0)])
    losses = [math.log(1 + math.exp(-margin)) for margin in (1, 0, -4)]
    assert found == pytest.approx({
        "eval_loss": sum(losses) / 3, "accuracy": 1 / 3, "margin": -1, "mean_reward": 5 / 6, "min_reward": -1,
        "max_reward": 3, "rows": 3,
    })  # fmt: skip
    assert [PairScore(x, -x).loss for x in (1000.0, -1000.0)] == [0.0, 2000.0]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = make_model(tmp_path_factory.mktemp("model") / "base", pad_token_id=7)
    made = load_model(folder, Head("sequence", 1), dtype=torch.float32)
    made.save_pretrained(folder)
    return Model(folder)


def test_scores_are_those_of_each_conversation_by_itself(tmp_path: Path, model: Model) -> None:
    pairs = thanked(9)
    data, alone = reward_data(tmp_path / "pairs", pairs), load_model(model.path, dtype=torch.float32).eval()
    lines = {}
    for size in (1, 4):
        out, heard = workspace(tmp_path / str(size)), Heard()
        evaluate(RewardEvaluationConfig(eval_batch_size=size), model, None, data, out, heard.report)
        text = (out.data / "predictions.jsonl").read_text()
        lines[size] = [json.loads(line) for line in text.splitlines()]
        assert json.loads((out.data / "metrics.json").read_text()) == heard.summary
        sure = json.loads((out.data / "intervals.json").read_text())
        assert sure.keys() == {"eval_loss", "accuracy", "margin"}
        share = sum(line["accuracy"] for line in lines[size]) / 9
        assert sure["accuracy"]["low"] <= share == heard.summary["accuracy"] <= sure["accuracy"]["high"]
        assert len({line["id"] for line in lines[size]}) == len(set(map(str, pairs)))
    for row, (chosen, rejected) in enumerate(pairs):
        for side, ids in (("chosen", chosen), ("rejected", rejected)):
            with torch.no_grad():
                expected = float(alone(input_ids=torch.tensor([ids])).logits)
            for found in lines.values():
                assert found[row][f"{side}_reward"] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    wrong = [row for row in lines[1] if row["chosen_reward"] <= row["rejected_reward"]]
    (table,) = heard.of("table")
    assert (
        table["title"] == f"Pairs in the wrong order ({len(wrong)})" and len(table["rows"]) == len(wrong) > 0
    )


def test_what_cannot_be_scored_is_refused(tmp_path: Path, model: Model) -> None:
    language, heard = Model(make_model(tmp_path / "language")), Heard()
    config, out = RewardEvaluationConfig(), workspace(tmp_path / "out")
    with pytest.raises(
        SettingError, match="a language model, where one that scores each sequence is evaluated"
    ):
        evaluate(config, language, None, reward_data(tmp_path / "pairs", thanked(2)), out, heard.report)
    with pytest.raises(RowError, match="no held-out pair to score"):
        evaluate(config, model, None, reward_data(tmp_path / "none", []), out, heard.report)
