"""Kernels in training: what a config chooses, what a machine without a GPU says, and training in the interpreter."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from pydantic import ValidationError
from support.interpreter import run_interpreted
from support.tiny_model import Heard, folder_bytes, make_model, random_rows, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model, TrainingData
from tunemill.stages.errors import SettingError
from tunemill.stages.training.kernels.insert_body import add_kernels
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
PLAIN = {"rms_norm", "rope", "swiglu", "geglu", "linear_cross_entropy"}
LORA_KERNELS = {"lora_mlp", "lora_qkv", "lora_o"}
LIGER_PLUGIN = "axolotl.integrations.liger.LigerPlugin"
CUT_PLUGIN = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"


def config(**settings: Any) -> SftConfig:
    return SftConfig(**{"learning_rate": 1e-2, **settings})


def sources(**settings: Any) -> dict[str, str]:
    return dict(config(**settings).kernel_choice.sources)


@pytest.mark.slow
def test_under_the_interpreter() -> None:
    run_interpreted("training", at_least=6, seconds=400)


@pytest.mark.slow
def test_more_of_it_under_the_interpreter() -> None:
    run_interpreted("training", at_least=11, seconds=400, slow=True)


@pytest.mark.parametrize(
    ("settings", "kernels"),
    [
        ({}, PLAIN),
        (LORA, PLAIN | LORA_KERNELS),
        ({"kernels": "off"}, set()),
        ({"kernels": False}, set()),
        ({"kernels": []}, set()),
        ({"kernels": ["rope", "lora_o"], **LORA}, {"rope", "lora_o"}),
        ({"lora_mlp_kernel": False, **LORA}, PLAIN | {"lora_qkv", "lora_o"}),
        ({"kernels": ["rope"], "lora_mlp_kernel": True, **LORA}, {"rope", "lora_mlp"}),
        ({"torch_compile": True, **LORA}, LORA_KERNELS | {"linear_cross_entropy"}),
    ],
)
def test_what_a_config_chooses(settings: dict[str, Any], kernels: set[str]) -> None:
    assert sources(**settings) == dict.fromkeys(kernels, "tunemill")


def test_what_other_libraries_compute() -> None:
    found = sources(**LORA, liger_rms_norm=True, liger_glu_activation=True, plugins=[LIGER_PLUGIN])
    assert {name: source for name, source in found.items() if source != "tunemill"} == dict.fromkeys(
        ("rms_norm", "swiglu", "geglu"), "liger"
    )
    assert "lora_mlp" not in found, "it has an activation of its own"
    assert "lora_qkv" in found
    assert sources(liger_fused_linear_cross_entropy=True)["linear_cross_entropy"] == "liger"
    assert sources(cut_cross_entropy=True)["linear_cross_entropy"] == "cut_cross_entropy"
    for plugin in (CUT_PLUGIN, "cut_cross_entropy"):
        assert sources(plugins=[plugin])["linear_cross_entropy"] == "cut_cross_entropy"
    liger = {"liger_rope": True}
    assert sources(plugins=["liger"], **liger) == sources(plugins=[LIGER_PLUGIN], **liger) == sources(**liger)
    assert sources(liger_layer_norm=True)["layer_norm"] == "liger"
    assert sources(plugins=[CUT_PLUGIN], cut_cross_entropy=False)["linear_cross_entropy"] == "tunemill"
    assert sources(chunked_cross_entropy=True, kernels="off") == {"linear_cross_entropy": "chunked"}
    assert "linear_cross_entropy" not in sources(liger_cross_entropy=True)


def test_what_a_config_insists_on() -> None:
    given = {
        "kernels": ["rope"],
        "chunked_cross_entropy": True,
        "liger_rms_norm": True,
        "lora_o_kernel": True,
    }
    asked = [one.key for one in config(**LORA, **given).kernel_choice.asked]
    assert asked == [
        "kernels: [rope]",
        "lora_o_kernel: true",
        "liger_rms_norm: true",
        "chunked_cross_entropy: true",
    ]
    assert not config(**LORA).kernel_choice.asked


def test_off_in_yaml_is_off() -> None:
    assert config(**yaml.safe_load("kernels: off")).kernels == "off"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernels": True}, "true: write auto, off, or a list of kernels"),
        ({"kernels": ["swigluu"]}, "Input should be 'rms_norm'"),
        ({"plugins": ["axolotl.integrations.liger.Liger"]}, "must be one of .*LigerPlugin"),
        ({"kernels": ["lora_o"]}, "lora_o: a kernel for low-rank factors, but adapter is unset"),
        ({**LORA, "kernels": "off", "lora_o_kernel": True}, "kernels: off and lora_o_kernel: true exclude"),
        (
            {**LORA, "kernels": ["lora_o"], "lora_o_kernel": False},
            "lora_o_kernel: false, but kernels names lora_o",
        ),
        ({"liger_rope": True, "kernels": ["rope"]}, "liger_rope: true and kernels: .'rope'. both compute it"),
        ({"cut_cross_entropy": True, "chunked_cross_entropy": True}, "each computes the loss. Keep one"),
        ({"liger_cross_entropy": True, "kernels": ["linear_cross_entropy"]}, "each computes the loss"),
        ({"plugins": [CUT_PLUGIN], "chunked_cross_entropy": True}, "each computes the loss. Keep one"),
    ],
)
def test_what_excludes_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


@pytest.mark.parametrize(
    ("settings", "keys"),
    [
        ({"kernels": ["lora_o"]}, ("kernels", "adapter")),
        ({"liger_rope": True, "kernels": ["rope"]}, ("liger_rope", "kernels")),
        (
            {"plugins": [CUT_PLUGIN], "chunked_cross_entropy": True},
            ("cut_cross_entropy", "chunked_cross_entropy"),
        ),
    ],
)
def test_which_keys_a_conflict_is_about(settings: dict[str, Any], keys: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**settings)
    assert caught.value.errors()[0]["ctx"]["error"].keys == keys


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base"))


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return training_data(tmp_path / "rows", random_rows(6))


def run(folder: Path, base: Model, data: TrainingData, **settings: Any) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    given = config(optimizer="sgd", logging_steps=1, **settings)
    sft(given, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report)
    return out.data, heard


def test_without_a_gpu_auto_is_off(tmp_path: Path, base: Model, data: TrainingData) -> None:
    auto, heard = run(tmp_path / "auto", base, data, max_steps=2, **LORA)
    off, _ = run(tmp_path / "off", base, data, max_steps=2, kernels="off", **LORA)
    assert heard.summary["kernels"] == "none"
    assert folder_bytes(auto) == folder_bytes(off)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"kernels": ["rms_norm"]}, r"kernels: \[rms_norm\]"),
        (
            {**LORA, "lora_mlp_kernel": True, "lora_o_kernel": True},
            "lora_mlp_kernel: true, lora_o_kernel: true",
        ),
        ({"liger_rope": True}, "liger_rope: true"),
        ({"plugins": [CUT_PLUGIN]}, "cut_cross_entropy: true"),
    ],
)
def test_without_a_gpu_what_is_insisted_on_is_refused(
    tmp_path: Path, base: Model, data: TrainingData, settings: dict[str, Any], key: str
) -> None:
    with pytest.raises(SettingError, match=f"{key}: needs a GPU, and this machine has none"):
        run(tmp_path / "out", base, data, **settings)
    assert not any((tmp_path / "out" / "data").iterdir())


def test_kernels_are_proven_under_autocast(base: Model) -> None:
    model, seen = AutoModelForCausalLM.from_pretrained(base.path), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    add_kernels(config(chunked_cross_entropy=True).kernel_choice, model, torch.bfloat16, Heard().report)
    assert seen
    assert all(seen)


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [None, 3])
def test_a_chunked_loss_runs_anywhere(
    tmp_path: Path, base: Model, data: TrainingData, chunks: int | None
) -> None:
    _, plain = run(tmp_path / "plain", base, data, gradient_accumulation_steps=2)
    _, heard = run(
        tmp_path / "chunked",
        base,
        data,
        gradient_accumulation_steps=2,
        chunked_cross_entropy=True,
        chunked_cross_entropy_num_chunks=chunks,
    )
    assert heard.of("table")[0]["rows"] == [["linear_cross_entropy", "chunked", 1]]
    assert heard.steps("loss") == pytest.approx(plain.steps("loss"), rel=1e-5)
    assert heard.steps("grad_norm") == pytest.approx(plain.steps("grad_norm"), rel=1e-4)
