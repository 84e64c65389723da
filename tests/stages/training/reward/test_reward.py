"""Reward models through the body: they learn, as with TRL, however a step is cut, and stock libraries load them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from safetensors.torch import load_file
from support.pairs import reward_data, thanked
from support.tiny_model import Heard, folder_bytes, make_model, workspace
from support.trl_training import OURS, assert_same_curves, trl_log
from support.variants import first_in_ci
from transformers import AutoModelForSequenceClassification
from trl import RewardConfig as TrlConfig
from trl import RewardTrainer

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.errors import SettingError
from tunemill.stages.models.loading_body import load_model
from tunemill.stages.models.merged.body import merge
from tunemill.stages.models.merged.config import MergedConfig
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quantized.body import quantize
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.training.reward.body import reward
from tunemill.stages.training.reward.config import REWARD, RewardConfig

SGD: dict[str, Any] = {
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "max_grad_norm": 0,
    "lr_scheduler": "constant",
}
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
LEARNING: dict[str, Any] = {
    "micro_batch_size": 8,
    "num_epochs": 2,
    "eval_strategy": "epoch",
    "logging_steps": 1,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(make_model(tmp_path_factory.mktemp("model") / "base"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PreferenceData:
    return reward_data(tmp_path_factory.mktemp("pairs"), thanked(160), held_out=thanked(60, seed=1))


def run(
    folder: Path, base: Model, data: PreferenceData, stored: Adapter | None = None, **settings: Any
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = RewardConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **settings})
    reward(
        config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report,
        stored_adapter=stored,
    )  # fmt: skip
    return out.data, heard


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def stock(folder: Path) -> Any:
    """The model as transformers loads it, with nothing new or left over."""
    model, told = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    return model.eval()


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, base: Model, pairs: PreferenceData
) -> tuple[Path, Heard]:
    return run(tmp_path_factory.mktemp("full"), base, pairs, **LEARNING)


@pytest.fixture(scope="module")
def adapter(
    tmp_path_factory: pytest.TempPathFactory, base: Model, pairs: PreferenceData
) -> tuple[Path, Heard]:
    return run(tmp_path_factory.mktemp("lora"), base, pairs, **LEARNING, **LORA)


@pytest.mark.parametrize("how", ["trained", pytest.param("adapter", marks=pytest.mark.slow)])
def test_it_learns_which_of_two_is_better(how: str, request: pytest.FixtureRequest) -> None:
    _, heard = request.getfixturevalue(how)
    accuracies, losses = heard.steps("eval_accuracy"), heard.steps("eval_loss")
    assert len(losses) == 2 and losses[40] < 0.3
    assert heard.summary["last_eval_accuracy"] == accuracies[40] > 0.9
    assert heard.steps("eval_margin")[40] > 1 and heard.steps("loss")[1] == pytest.approx(0.69, abs=0.3)


def test_stock_transformers_loads_what_was_trained(trained: tuple[Path, Heard]) -> None:
    folder, _ = trained
    stored = config_of(folder)
    assert stored["architectures"] == ["LlamaForSequenceClassification"]
    assert stored["id2label"] == {"0": "LABEL_0"} and stored["pad_token_id"] == 0
    assert stock(folder).score.weight.shape == (1, 32)
    assert not (folder / "generation_config.json").exists()


@pytest.mark.slow
def test_an_adapter_has_its_head_with_it_and_merges_into_a_model_that_scores(
    tmp_path: Path, base: Model, adapter: tuple[Path, Heard]
) -> None:
    folder, _ = adapter
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert stored["task_type"] == "SEQ_CLS" and stored["modules_to_save"] == ["score"]
    assert "base_model.model.score.weight" in weights(folder)
    both = PeftModel.from_pretrained(
        AutoModelForSequenceClassification.from_pretrained(base.path, num_labels=1), folder
    ).eval()
    ids = fixed_tokens(416)
    expected = logits_of(both, ids)
    out, heard = workspace(tmp_path / "merged"), Heard()
    merge(MergedConfig(), base, None, Adapter(folder), out, heard.report)
    assert config_of(out.data)["architectures"] == ["LlamaForSequenceClassification"]
    torch.testing.assert_close(logits_of(stock(out.data), ids), expected, atol=1e-4, rtol=1e-4)
    assert heard.summary["max_abs_logit_change"] > 0.1 > heard.summary["max_abs_logit_difference"]
    small, heard = workspace(tmp_path / "small"), Heard()
    quantize(QuantizedConfig(), Model(out.data), small, heard.report)
    assert config_of(small.data)["architectures"] == ["LlamaForSequenceClassification"]
    assert heard.summary["quantized_modules"] == 14, "two layers of seven, and not the head"
    quantized = AutoModelForSequenceClassification.from_pretrained(small.data).eval()
    torch.testing.assert_close(logits_of(quantized, ids), expected, atol=0.3, rtol=0.1)


@pytest.mark.slow
def test_a_model_that_scores_is_trained_on_with_its_head(
    tmp_path: Path,
    base: Model,
    pairs: PreferenceData,
    trained: tuple[Path, Heard],
    adapter: tuple[Path, Heard],
) -> None:
    settings = {"max_steps": 1, "eval_steps": 1, "micro_batch_size": 8, "learning_rate": 1e-5}
    for start, model, stored, more in (
        (trained, Model(trained[0]), None, {}),
        (adapter, base, Adapter(adapter[0]), {"adapter": "lora", "has_stored_adapter": True}),
    ):
        folder, heard = run(tmp_path / str(len(more)), model, pairs, stored, **settings, **more)
        known = start[1].summary
        assert heard.steps("eval_loss")[1] == pytest.approx(known["last_eval_loss"], abs=0.02)
        assert weights(folder).keys() == weights(start[0]).keys()
        if more:
            assert json.loads((folder / "adapter_config.json").read_text())["modules_to_save"] == ["score"]


@pytest.mark.slow
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model) -> None:
    data = reward_data(tmp_path / "pairs", thanked(20))
    given = {**SGD, "num_epochs": 2, "center_rewards_coefficient": 0.05}
    whole, one = run(tmp_path / "whole", base, data, micro_batch_size=8, **given)
    cut, eight = run(tmp_path / "cut", base, data, micro_batch_size=1, gradient_accumulation_steps=8, **given)
    assert len(one.steps("loss")) == 6, "the last step of an epoch has four pairs"
    for figure in ("loss", "grad_norm", "accuracy", "margin", "mean_reward"):
        assert eight.steps(figure) == pytest.approx(one.steps(figure), rel=1e-4, abs=1e-6), figure
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_same_run_twice_is_the_same_bytes_and_monitoring_changes_none(
    tmp_path: Path, base: Model
) -> None:
    data = reward_data(tmp_path / "pairs", thanked(12), held_out=thanked(4, seed=1))
    settings = {**LORA, "lora_dropout": 0.1, "max_steps": 4, "micro_batch_size": 2}
    torch.manual_seed(1)
    first, _ = run(tmp_path / "first", base, data, **settings)
    torch.manual_seed(2)
    second, heard = run(tmp_path / "second", base, data, **settings, eval_steps=2, eval_batch_size=1)
    assert folder_bytes(first) == folder_bytes(second)
    assert list(heard.steps("eval_loss")) == [2, 4]


@pytest.mark.slow
@pytest.mark.parametrize("centering", first_in_ci(0.05, 0.0))
def test_ten_steps_are_trls(tmp_path: Path, base: Model, centering: float) -> None:
    pairs = thanked(40)
    start = load_model(base.path, REWARD, seed=OURS["seed"], dtype=torch.float32)
    rows = Dataset.from_list([{"chosen_ids": chosen, "rejected_ids": other} for chosen, other in pairs])
    given = {"center_rewards_coefficient": centering}
    _, heard = run(tmp_path / "ours", base, reward_data(tmp_path / "pairs", pairs), **{**OURS, **given})
    log = trl_log(RewardTrainer, TrlConfig, tmp_path / "trl", base.path, rows, model=start, **given)
    assert_same_curves(heard, log, ("loss", "grad_norm", "accuracy", "margin", "mean_reward"))


@pytest.mark.parametrize("change", [
    {"adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_target_modules": ["q_proj", "score"]},
    {"adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_target_modules": ".*score"},
])  # fmt: skip
def test_the_head_gets_no_adapter(
    tmp_path: Path, base: Model, pairs: PreferenceData, change: dict[str, Any]
) -> None:
    with pytest.raises(
        SettingError, match="lora_target_modules: score: the head of this model is new and trained"
    ):
        run(tmp_path, base, pairs, **change)


@pytest.mark.slow
def test_a_part_of_the_weights_is_trained_with_the_head(
    tmp_path: Path, base: Model, pairs: PreferenceData
) -> None:
    folder, _ = run(tmp_path, base, pairs, max_steps=2, unfrozen_parameters=["layers.1.mlp"])
    start = load_model(base.path, REWARD, seed=42, dtype=torch.float32).state_dict()
    moved = {name for name, tensor in weights(folder).items() if not torch.equal(tensor, start[name])}
    assert moved == {
        "score.weight",
        *(f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
