"""Process reward models through the body: they learn, however a step is cut or packed; stock libraries load them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from support.steps import Answer, counting, held_out_steps, step_data
from support.tiny_model import Heard, make_model, packs_of, workspace
from transformers import AutoModelForTokenClassification

from tunemill.stages.artifacts import Adapter, EvaluationData, Model, TrainingData
from tunemill.stages.errors import RowError
from tunemill.stages.evaluation.steps.body import evaluate
from tunemill.stages.evaluation.steps.config import StepEvaluationConfig
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.training.process_reward.body import process_reward
from tunemill.stages.training.process_reward.config import ProcessRewardConfig

SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 0,
    "lr_scheduler": "constant",
}
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True}
LEARNING: dict[str, Any] = {
    "micro_batch_size": 16,
    "num_epochs": 4,
    "eval_strategy": "epoch",
    "eval_batch_size": 60,
}
# Both kinds of answers are among them.
HELD_OUT = counting(60, seed=1)
Trained = tuple[Path, Heard]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> EvaluationData:
    return held_out_steps(tmp_path_factory.mktemp("held_out"), HELD_OUT)


def run(
    folder: Path, base: Model, data: TrainingData, held_out: EvaluationData | None = None, **settings: Any
) -> Trained:
    out, heard = workspace(folder), Heard()
    config = ProcessRewardConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **settings})
    process_reward(config, base, data, held_out, out, heard.report)
    return out.data, heard


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Model, held_out: EvaluationData) -> Trained:
    folder = tmp_path_factory.mktemp("full")
    return run(folder, base, step_data(folder / "rows", counting(400)), held_out, **LEARNING)


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Model, held_out: EvaluationData) -> Trained:
    folder = tmp_path_factory.mktemp("lora")
    return run(folder, base, step_data(folder / "rows", counting(400)), held_out, **LEARNING, **LORA)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def stock(folder: Path) -> Any:
    """The model as transformers loads it, with nothing new or left over."""
    model, told = AutoModelForTokenClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


def evaluated(folder: Path, held_out: EvaluationData, model: Model, adapter: Adapter | None = None) -> Any:
    """Metrics and predictions."""
    out = workspace(folder)
    evaluate(StepEvaluationConfig(), model, adapter, held_out, out, Heard().report)
    lines = (out.data / "predictions.jsonl").read_text().splitlines()
    return read(out.data, "metrics.json"), [json.loads(line) for line in lines]


@pytest.mark.parametrize("how", ["trained", pytest.param("adapter", marks=pytest.mark.slow)])
def test_it_learns_which_steps_are_right(how: str, request: pytest.FixtureRequest) -> None:
    _, heard = request.getfixturevalue(how)
    accuracies = heard.steps("eval_accuracy")
    assert accuracies[25] < accuracies[100] > 0.9
    assert heard.steps("eval_loss")[100] < 0.3 < heard.steps("loss")[1]
    assert heard.steps("accuracy")[100] > 0.9 and heard.summary["last_eval_accuracy"] == accuracies[100]


def test_stock_transformers_loads_what_was_trained(trained: Trained) -> None:
    folder, _ = trained
    stored = read(folder, "config.json")
    assert stored["architectures"] == ["LlamaForTokenClassification"]
    assert stored["id2label"] == {"0": "wrong", "1": "right"} and stored["label2id"] == {
        "wrong": 0,
        "right": 1,
    }
    assert stock(folder).config.id2label == {0: "wrong", 1: "right"}
    assert not (folder / "generation_config.json").exists()


@pytest.mark.slow
def test_an_adapter_has_its_head_with_it_and_merges(
    tmp_path: Path, base: Model, adapter: Trained, held_out: EvaluationData
) -> None:
    folder, heard = adapter
    assert read(folder, "adapter_config.json")["task_type"] == "TOKEN_CLS"
    both = PeftModel.from_pretrained(
        AutoModelForTokenClassification.from_pretrained(base.path), folder
    ).eval()
    expected = logits_of(both, fixed_tokens(416))
    out = workspace(tmp_path / "merged")
    merge(MergedConfig(), base, None, Adapter(folder), out, Heard().report)
    torch.testing.assert_close(logits_of(stock(out.data), fixed_tokens(416)), expected, atol=1e-4, rtol=1e-4)
    assert stock(out.data).config.id2label == {0: "wrong", 1: "right"}
    # What is said of the adapter beside its base, of the merged model, and what training said.
    beside, _ = evaluated(tmp_path / "beside", held_out, base, Adapter(folder))
    merged, _ = evaluated(tmp_path / "whole", held_out, Model(out.data))
    assert merged == pytest.approx(beside, rel=1e-4)
    assert beside["step_accuracy"] == heard.steps("eval_accuracy")[100]
    assert beside["eval_loss"] == pytest.approx(heard.steps("eval_loss")[100], rel=1e-5)


def test_an_evaluation_says_of_each_step_what_it_is(
    tmp_path: Path, trained: Trained, held_out: EvaluationData
) -> None:
    metrics, predictions = evaluated(tmp_path, held_out, Model(trained[0]))
    assert metrics["rows"] == len(predictions) == 60 and metrics["steps"] == 240
    assert metrics["step_accuracy"] > 0.9 and metrics["first_wrong_f1"] > 0.9
    model = stock(trained[0])
    for answer, found in zip(HELD_OUT[:5], predictions, strict=False):
        assert [step["label"] for step in found["steps"]] == list(answer.labels)
        ids = torch.tensor([answer.row[0]])
        chances = model(ids).logits[0].softmax(-1)[[4, 7, 10, 13], 1].tolist()
        assert [step["probability"] for step in found["steps"]] == pytest.approx(chances, abs=1e-5)
        assert [step["prediction"] for step in found["steps"]] == [chance > 0.5 for chance in chances]
        wrong = [number for number, label in enumerate(answer.labels) if not label]
        assert found["first_wrong"] == (wrong[0] if wrong else None)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A base whose head drops nothing out: transformers' default is a tenth."""
    return Model(make_model(tmp_path_factory.mktemp("still") / "base", classifier_dropout=0.0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, still: Model) -> Trained:
    """Answers of unequal length, eight in a batch."""
    folder = tmp_path_factory.mktemp("whole")
    data = step_data(folder / "rows", counting(20, shortest=1))
    return run(folder, still, data, **SGD, num_epochs=1, micro_batch_size=8)


@pytest.mark.parametrize("change", [
    {"micro_batch_size": 1, "gradient_accumulation_steps": 8},
    pytest.param({"pad_to_sequence_len": True, "sequence_len": 40}, marks=pytest.mark.slow),
    pytest.param({"batch_flattening": True}, marks=pytest.mark.slow),
    {"sample_packing": True, "sequence_len": 64, "micro_batch_size": 2},
], ids=str)  # fmt: skip
def test_the_same_answers_in_a_step_are_the_same_step(
    tmp_path: Path, still: Model, whole: Trained, change: dict[str, Any]
) -> None:
    packs = packs_of(20, 4) if "sample_packing" in change else None
    data = step_data(tmp_path / "rows", counting(20, shortest=1), packs)
    folder, heard = run(tmp_path, still, data, **{**SGD, "num_epochs": 1, "micro_batch_size": 8, **change})
    expected, one = whole
    for figure in ("loss", "grad_norm", "accuracy"):
        assert heard.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-6), figure
    for name, tensor in weights(expected).items():
        torch.testing.assert_close(weights(folder)[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_held_out_figures_are_the_same_for_any_batch_size(tmp_path: Path, base: Model) -> None:
    data = step_data(tmp_path / "rows", counting(4, shortest=1))
    some = held_out_steps(tmp_path / "held_out", counting(7, seed=2, shortest=1))
    figures = []
    for size in (1, 4):
        _, heard = run(
            tmp_path / str(size), base, data, some, eval_steps=2, max_steps=2, eval_batch_size=size
        )
        figures.append({name: heard.steps(name)[2] for name in ("eval_loss", "eval_accuracy")})
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_a_class_that_the_head_has_not_is_refused(tmp_path: Path, base: Model) -> None:
    first, second = counting(2)
    odd: Answer = replace(second, labels=(True, 2, False, True))  # type: ignore[arg-type]
    data = step_data(tmp_path / "rows", [first, odd])
    with pytest.raises(
        RowError, match="training data: a step of row 2 is labelled 2, and with num_labels: 2"
    ):
        run(tmp_path, base, data)


@pytest.mark.slow
def test_more_classes(tmp_path: Path, base: Model) -> None:
    first, second = counting(2)
    odd: Answer = replace(second, labels=(True, 2, False, True))  # type: ignore[arg-type]
    folder, _ = run(tmp_path, base, step_data(tmp_path / "rows", [first, odd]), num_labels=3)
    assert stock(folder).score.weight.shape == (3, 32)


@pytest.mark.parametrize(("change", "reason"), [
    ({"num_labels": 1}, "greater than or equal to 2"),
    ({"eval_sample_packing": True}, "scored one in a sequence"),
    ({"group_by_length": True, "curriculum_sampling": True}, "Choose one"),
    ({"adapter": "llama-adapter"}, "those of language models"),
    ({"use_eaft": True}, "Extra inputs are not permitted"),
])  # fmt: skip
def test_settings_that_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ProcessRewardConfig(learning_rate=1, **change)
