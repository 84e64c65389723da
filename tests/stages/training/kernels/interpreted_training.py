"""The `trained` body with kernels, in Triton's interpreter. Run by tests/stages/training/kernels/test_kernels.py."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import support.interpreted_library  # noqa: F401  before Liger
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.families import make_family
from support.tiny_model import (
    VOCABULARY,
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM

from tunemill.kernels.functions.triton_runtime import interpreted
from tunemill.stages.artifacts import EvaluationData, Model, TrainingData
from tunemill.stages.errors import SettingError
from tunemill.stages.training.kernels.insert_body import PACKAGES, add_kernels
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_target_linear": True}
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
PACKED: dict[str, Any] = {"sample_packing": True, "sequence_len": 16}


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base", **SMALL))


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return training_data(tmp_path / "rows", random_rows(4, longest=8), packs_of(4, 2))


def run(
    folder: Path, base: Model, data: TrainingData, held_out: EvaluationData | None = None, **settings: Any
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    given = {"learning_rate": 1e-2, "optimizer": "sgd", "lr_scheduler": "constant", "logging_steps": 1}
    config = SftConfig(**{**given, **settings})
    sft(config, base_model=base, training_data=data, evaluation_data=held_out, out=out, report=heard.report)
    return out.data, heard


def kernels_of(heard: Heard) -> dict[str, str]:
    """Kernel -> where it comes from."""
    return {
        row[0]: row[1] for table in heard.of("table") if table["title"] == "Kernels" for row in table["rows"]
    }


def assert_same_training(actual: tuple[Path, Heard], expected: tuple[Path, Heard], tolerance: float) -> None:
    assert actual[1].steps("loss") == pytest.approx(expected[1].steps("loss"), rel=tolerance)
    assert actual[1].steps("grad_norm") == pytest.approx(expected[1].steps("grad_norm"), rel=20 * tolerance)
    name = next(path.name for path in expected[0].glob("*.safetensors"))
    left, right = load_file(actual[0] / name), load_file(expected[0] / name)
    assert list(left) == list(right)
    for key, tensor in right.items():
        torch.testing.assert_close(left[key], tensor, atol=tolerance, rtol=20 * tolerance)
    assert json.loads((actual[0] / "tokenizer.json").read_text())


def test_the_interpreter_is_on() -> None:
    assert interpreted


@pytest.mark.parametrize(
    "adapter", [pytest.param({}, id="full", marks=pytest.mark.slow), pytest.param(LORA, id="lora")]
)
def test_training_is_the_same_with_kernels(
    tmp_path: Path, base: Model, data: TrainingData, adapter: dict[str, Any]
) -> None:
    settings = {**adapter, **PACKED, "gradient_checkpointing": bool(adapter)}
    plain = run(tmp_path / "off", base, data, kernels="off", **settings)
    fused = run(tmp_path / "auto", base, data, **settings)
    ours = {"lora_mlp", "lora_qkv", "lora_o"} if adapter else {"swiglu"}
    expected = ours | {"rms_norm", "rope", "linear_cross_entropy", "rms_norm with the residual"}
    assert kernels_of(fused[1]) == dict.fromkeys(expected, "tunemill")
    assert "rope (1)" in fused[1].summary["kernels"]
    assert plain[1].summary["kernels"] == "none"
    assert not kernels_of(plain[1])
    assert_same_training(fused, plain, 1e-5)
    config = "adapter_config.json" if adapter else "config.json"
    assert (fused[0] / config).read_bytes() == (plain[0] / config).read_bytes()
    model = AutoModelForCausalLM.from_pretrained(base.path if adapter else fused[0])
    if adapter:
        PeftModel.from_pretrained(model, fused[0])


@pytest.mark.slow
def test_a_soft_cap_is_kept(tmp_path: Path, data: TrainingData) -> None:
    folder = tmp_path / "gemma2"
    make_family("gemma2", vocab_size=VOCABULARY).save_pretrained(folder)
    make_tokenizer(folder)
    held_out = evaluation_data(tmp_path / "held_out", random_rows(2, seed=9, longest=6))
    settings = {"eval_steps": 1, "max_steps": 1, **PACKED}
    runs = [
        run(tmp_path / kernels, Model(folder), data, held_out, kernels=kernels, **settings)
        for kernels in ("off", "auto")
    ]
    assert {"geglu", "linear_cross_entropy"} <= set(kernels_of(runs[1][1]))
    assert_same_training(runs[1], runs[0], 1e-5)
    assert runs[1][1].summary["last_eval_loss"] == pytest.approx(
        runs[0][1].summary["last_eval_loss"], rel=1e-5
    )
    assert json.loads((runs[1][0] / "config.json").read_text())["final_logit_softcapping"] == 2.0


@pytest.mark.slow
def test_two_runs_give_the_same_bytes(tmp_path: Path, base: Model, data: TrainingData) -> None:
    first, _ = run(tmp_path / "1", base, data, **LORA, lora_dropout=0.3, **PACKED)
    second, _ = run(tmp_path / "2", base, data, **LORA, lora_dropout=0.3, **PACKED)
    assert folder_bytes(first) == folder_bytes(second)


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bytes(tmp_path: Path, base: Model, data: TrainingData) -> None:
    settings: dict[str, Any] = {**LORA, **PACKED, "lora_dropout": 0.3, "max_steps": 2, "save_steps": 1}
    whole, _ = run(tmp_path / "whole", base, data, **settings)
    shutil.copytree(
        tmp_path / "whole" / "checkpoints" / "checkpoint-1", tmp_path / "b/checkpoints/checkpoint-1"
    )
    resumed, heard = run(tmp_path / "b", base, data, **settings)
    assert any("resuming from checkpoint-1" in event["message"] for event in heard.of("log"))
    assert folder_bytes(resumed) == folder_bytes(whole)


@pytest.mark.slow
def test_only_the_named_kernels(tmp_path: Path, base: Model, data: TrainingData) -> None:
    _, heard = run(tmp_path / "a", base, data, kernels=["swiglu", "rope"], max_steps=1)
    assert set(kernels_of(heard)) == {"swiglu", "rope"}
    _, heard = run(tmp_path / "b", base, data, kernels="off", **LORA, max_steps=1)
    assert not kernels_of(heard)
    _, heard = run(tmp_path / "c", base, data, **LORA, lora_mlp_kernel=False, lora_o_kernel=True, max_steps=1)
    assert {"swiglu", "lora_qkv", "lora_o"} <= set(kernels_of(heard))
    assert "lora_mlp" not in kernels_of(heard)
    _, heard = run(tmp_path / "d", base, data, chunked_cross_entropy=True, kernels=["rms_norm"], max_steps=1)
    assert kernels_of(heard)["linear_cross_entropy"] == "chunked"


def test_what_nearly_fits_is_told() -> None:
    heard = Heard()
    config = SftConfig(learning_rate=1e-2, kernels=["rms_norm"])
    add_kernels(config.kernel_choice, make_family("granite", residual_multiplier=1.0), None, heard.report)
    assert not heard.of("log")
    model = make_family("cohere", num_hidden_layers=2)
    first, second = (layer.mlp for layer in model.model.layers)
    first.act_fn, second.forward = torch.nn.ReLU(), second.forward
    add_kernels(SftConfig(learning_rate=1e-2).kernel_choice, model, None, heard.report)
    logs = "\n".join(event["message"] for event in heard.of("log"))
    assert "kernel swiglu: not in model.layers.0.mlp, 1 in all: its activation is none of" in logs
    assert "kernel swiglu: not in model.layers.1.mlp, 1 in all: something else has replaced its f" in logs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": ["geglu"]}, r"kernels: \[geglu\]: no module of this model computes that"),
        pytest.param(
            {"cut_cross_entropy": True},
            "cut_cross_entropy: true: it fits no module.*bf16: true",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_kernel_that_fits_nothing_is_refused(
    tmp_path: Path, base: Model, data: TrainingData, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        run(tmp_path / "out", base, data, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "beside"),
    [
        ("lora_mlp_kernel", {**LORA, "lora_target_linear": False, "lora_target_modules": ["q_proj"]}),
        ("liger_layer_norm", {}),
    ],
)
def test_what_axolotls_keys_ask_for_is_computed_without_a_kernel_where_none_fits(
    tmp_path: Path, base: Model, data: TrainingData, key: str, beside: dict[str, Any]
) -> None:
    plain = run(tmp_path / "auto", base, data, max_steps=1, **beside)
    asked = run(tmp_path / "asked", base, data, max_steps=1, **beside, **{key: True})
    said = [event["message"] for event in asked[1].of("log") if event["message"].startswith(f"{key}: true: ")]
    assert said == [f"{key}: true: no module of this model computes that. The model computes it itself"]
    assert kernels_of(asked[1]) == kernels_of(plain[1])
    assert_same_training(asked, plain, 1e-6)


@pytest.mark.parametrize(
    ("settings", "kernels"),
    [
        pytest.param(
            {"liger_rope": True, "liger_rms_norm": True}, {"rope", "rms_norm"}, marks=pytest.mark.slow
        ),
        pytest.param({"liger_glu_activation": True}, {"swiglu"}, marks=pytest.mark.slow),
        pytest.param({"liger_cross_entropy": True}, {"cross_entropy"}, marks=pytest.mark.slow),
        ({"liger_fused_linear_cross_entropy": True}, {"linear_cross_entropy"}),
    ],
)
def test_liger(
    tmp_path: Path,
    base: Model,
    data: TrainingData,
    settings: dict[str, Any],
    kernels: set[str],
) -> None:
    plain = run(tmp_path / "off", base, data, kernels="off", max_steps=1)
    liger = run(tmp_path / "liger", base, data, kernels="off", max_steps=1, **settings)
    assert kernels_of(liger[1]) == dict.fromkeys(kernels, "liger")
    assert_same_training(liger, plain, 1e-4)


def test_a_missing_package_is_named(
    tmp_path: Path, base: Model, data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PACKAGES, "liger", ("no_such_module", "liger-kernel"))
    with pytest.raises(
        SettingError, match=r"^liger_rope: true: needs the package liger-kernel, which is not inst"
    ):
        run(tmp_path / "out", base, data, liger_rope=True, kernels=["swiglu"])
