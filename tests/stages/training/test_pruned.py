"""A pruned model is trained on, and its zeros stay: with every way of taking steps, and after an interruption."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file
from support.pruned import make_pruned, recipe
from support.tiny_model import Heard, folder_bytes, make_model, random_rows, training_data, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

# The targets of Axolotl's example.
NAMED = [f"re:.*{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down")]


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_pruned(tmp_path / "base"))


def train(base: Model, folder: Path, *targets: str, **keys: Any) -> tuple[Path, Heard]:
    """The folder of the trained model, and what was reported."""
    heard, out = Heard(), workspace(folder)
    settings = {"learning_rate": 3e-3, "max_steps": 3, "logging_steps": 1, "weight_decay": 0.1, **keys}
    if targets:
        settings["llmcompressor"] = {"recipe": recipe(*targets), "save_compressed": False}
    sft(SftConfig(**settings), base, training_data(folder / "rows", random_rows(4)), None, out, heard.report)
    return out.data, heard


def shares(base: Model, trained: Path) -> dict[str, tuple[float, float]]:
    """Of each linear module of a layer: which share of its zeros is still zero, and of its other numbers has moved."""
    before, after = load_file(base.path / "model.safetensors"), load_file(trained / "model.safetensors")
    return {
        name: (
            float((after[name][before[name] == 0] == 0).float().mean()),
            float((after[name] != before[name])[before[name] != 0].float().mean()),
        )
        for name in before
        if "_proj" in name
    }


@pytest.mark.parametrize(
    "keys",
    [
        {},
        pytest.param({"optimizer": "muon"}, marks=pytest.mark.slow),
        {"optimizer": "schedule_free_adamw", "lr_scheduler": "constant"},
        {"qat": {"weight_dtype": "int8", "activation_dtype": "int8"}},
        pytest.param({"bf16": True}, marks=pytest.mark.slow),
    ],
)
def test_zeros_stay_and_the_others_are_trained(base: Model, tmp_path: Path, keys: dict[str, Any]) -> None:
    data, heard = train(base, tmp_path / "run", *NAMED, **keys)
    found = shares(base, data)
    assert len(found) == 14 and all(zeros == 1 and others > 0.5 for zeros, others in found.values())
    assert heard.summary["zero_share"] == 0.5
    assert any("50.0% of the numbers in 14 weights" in event["message"] for event in heard.of("log"))


def test_without_the_key_they_move_and_the_first_step_is_the_same(base: Model, tmp_path: Path) -> None:
    data, plain = train(base, tmp_path / "plain")
    assert all(zeros < 0.5 for zeros, _ in shares(base, data).values())
    _, kept = train(base, tmp_path / "kept", "Linear")
    # Gradients are those of the whole model: a clip sees all of them, as in llm-compressor.
    for figure in ("loss", "grad_norm"):
        assert kept.steps(figure)[1] == plain.steps(figure)[1]
        assert kept.steps(figure)[3] != plain.steps(figure)[3]


class StoppedError(Exception):
    """Ends a training from outside."""


@pytest.mark.slow
def test_after_an_interruption_it_goes_on_with_the_same_zeros(base: Model, tmp_path: Path) -> None:
    keys = {"max_steps": 4, "save_steps": 1}
    whole, _ = train(base, tmp_path / "whole", "Linear", **keys)
    heard, out = Heard(), workspace(tmp_path / "run")
    data = training_data(tmp_path / "run" / "rows", random_rows(4))
    config = SftConfig(
        learning_rate=3e-3,
        weight_decay=0.1,
        logging_steps=1,
        llmcompressor={"recipe": recipe("Linear")},
        **keys,
    )

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 3:
            raise StoppedError

    with pytest.raises(StoppedError):
        sft(config, base, data, None, out, Report(interrupt))
    sft(config, base, data, None, out, heard.report)
    assert min(heard.steps("loss")) == 3
    assert folder_bytes(out.data) == folder_bytes(whole)


@pytest.mark.slow
def test_of_the_modules_only_those_that_are_named(base: Model, tmp_path: Path) -> None:
    data, _ = train(base, tmp_path / "run", "model.layers.0.mlp.up_proj")
    found = shares(base, data)
    assert found.pop("model.layers.0.mlp.up_proj.weight")[0] == 1
    assert all(zeros < 1 for zeros, _ in found.values())


def test_a_target_that_is_none_and_a_base_that_is_not_pruned_are_refused(base: Model, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"targets: re:\.\*qkv: names no weight of this model"):
        train(base, tmp_path / "run", "Linear", "re:.*qkv")
    with pytest.raises(SettingError, match="none of the 15 weights of its targets has a zero"):
        train(Model(make_model(tmp_path / "dense")), tmp_path / "other", "__ALL_PRUNABLE__")


OTHERS = [
    (
        {"quantization_modifiers": {"GPTQModifier": {"scheme": "W4A16"}}},
        "GPTQModifier: while training, Constant",
    ),
    ({}, "it has no modifier"),
    (
        {"a_stage": {"b_modifiers": {"ConstantPruningModifier": {"targets": []}}}},
        "targets: is a list of names",
    ),
    (
        {"ConstantPruningModifier": {"targets": "Linear", "start": 2}},
        "start: 2: weights are kept at zero",
    ),
    ({"ConstantPruningModifier": {"targets": "Linear", "sparsity": 0.5}}, "sparsity: it has targets"),
    ({"ConstantPruningModifier": {"targets": ["re:("]}}, "no valid regular expression"),
    ({"ConstantPruningModifier": {"targets": "__ALL__"}}, "Write Linear"),
]


@pytest.mark.parametrize(("given", "said"), OTHERS)
def test_what_else_a_recipe_asks_for_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        SftConfig(learning_rate=1e-3, max_steps=1, llmcompressor={"recipe": given})
