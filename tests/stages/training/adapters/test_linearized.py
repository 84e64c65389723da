"""A Llama 4 with its experts named as linear modules: trained in 4 bits, merged, evaluated."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.training.adapters.adapted import ROWS, llama, merged, train
from support.llama4 import make_llama4
from support.quantized import quantized
from support.tiny_model import Heard, evaluation_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Adapter, BaseModel, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answers.body import evaluate
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.joined_experts_body import JoinedExperts
from tunemill.stages.models.linear_experts_body import join_experts, split_experts
from tunemill.stages.models.linearized import PARTS

LINEARIZED: dict[str, Any] = {"llama4_linearized_experts": True}
ATTENTION = ["self_attn.q_proj", "shared_expert.up_proj"]
OF_EXPERTS = ["experts.gate_projs.[0-9]+$", "experts.up_projs.[0-9]+$", "experts.down_projs.[0-9]+$"]
GATE_UP, DOWN = (f"model.layers.1.feed_forward.experts.{name}" for name in ("gate_up_proj", "down_proj"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel(make_llama4(tmp_path_factory.mktemp("llama4")))


def loss_of(folder: Path, model: Model, adapter: Adapter | None = None) -> float:
    heard, data = Heard(), evaluation_data(folder / "rows", ROWS)
    evaluate(EvaluationConfig(), model, adapter, data, workspace(folder), heard.report)
    return float(heard.summary["eval_loss"])


@pytest.mark.slow
@pytest.mark.parametrize("experts", [False, True])
def test_it_is_trained_in_4_bits_and_merged(tmp_path: Path, base: BaseModel, experts: bool) -> None:
    targets = [*ATTENTION, *OF_EXPERTS] if experts else ATTENTION
    frozen, heard = quantized(tmp_path / "frozen", base, load_in_4bit=True, **LINEARIZED)
    names = StoredBase(frozen.path).quantized
    assert len([name for name in names if ".experts." in name]) == 2 * 2 * 3
    assert heard.summary["largest_relative_error"] < 0.15
    adapter, heard = train(
        tmp_path / "trained", frozen, adapter="qlora", load_in_4bit=True, steps=20, bf16=False, lora_r=8,
        lora_target_modules=targets, **LINEARIZED,
    )  # fmt: skip
    losses = heard.steps("loss")
    assert losses[20] < 0.8 * losses[1]
    stored = load_file(adapter.path / "adapter_model.safetensors")
    assert any(".experts." in name for name in stored) is experts
    data, heard = merged(tmp_path / "merged", base, adapter, frozen)
    assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base.path, data))
    assert {name: weight.shape for name, weight in before.items()} == {
        name: weight.shape for name, weight in after.items()
    }
    rounded = JoinedExperts(frozen.path)
    for name in (GATE_UP, DOWN):
        assert not torch.equal(before[name], rounded.read(name))
        assert torch.equal(rounded.read(name), after[name]) is not experts
    of_merged = loss_of(tmp_path / "after", Model(data))
    assert of_merged < 0.8 * loss_of(tmp_path / "before", base)
    assert of_merged == pytest.approx(loss_of(tmp_path / "beside", frozen, adapter), rel=0.1)
    loss_of(tmp_path / "beside the other", base, adapter)


EXPERT = "model.layers.1.feed_forward.experts"


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"lora_target_linear": True}, {f"{n}.{part}" for n in (0, 1) for part in PARTS}),
        ({"lora_target_modules": ["gate_proj", "self_attn.q_proj"]}, set()),
        ({"lora_target_modules": ["experts.gate_projs.1"], "lora_dropout": 0.1}, {"1.gate_proj"}),
        (
            {"lora_target_modules": r".*\.1\..*experts\.down_projs\.\d+", "peft_use_dora": True},
            {"0.down_proj", "1.down_proj"},
        ),
        (
            {"lora_target_linear": True, "lora_exclude_modules": r".*\.(down|up)_projs\.\d+"},
            {"0.gate_proj", "1.gate_proj"},
        ),
    ],
)
def test_which_modules_get_an_adapter(
    tmp_path: Path, base: BaseModel, settings: dict[str, Any], found: set[str]
) -> None:
    settings = {"lora_rank_pattern": {"gate_projs.1": 2}, **LINEARIZED, **settings}
    adapter, _ = train(tmp_path / "trained", base, **settings)
    stored = load_file(adapter.path / "adapter_model.safetensors")
    start, end = f"base_model.model.{EXPERT}.", ".lora_A.weight"
    ranks = {
        name.removeprefix(start).removesuffix(end): weight.shape[0]
        for name, weight in stored.items()
        if name.startswith(start) and name.endswith(end)
    }
    assert ranks == {name: 2 if name == "1.gate_proj" else 4 for name in found}
    assert not any("router" in name for name in stored)
    data, heard = merged(tmp_path / "merged", base, adapter)
    assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base.path, data))
    assert before.keys() == after.keys()
    change = (after[GATE_UP] - before[GATE_UP]).float().abs().sum(dim=1)
    for number in range(2):
        for part, columns in (("gate_proj", slice(64)), ("up_proj", slice(64, None))):
            assert bool(change[number, columns].any()) is (f"{number}.{part}" in found)
    assert torch.equal(before[DOWN], after[DOWN]) is not any("down" in name for name in found)


def test_linear_experts_compute_the_same_and_can_be_put_back(base: BaseModel) -> None:
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    ids = torch.arange(3, 60).reshape(3, 19)
    with torch.no_grad():
        before, weights = model(ids).logits, model.state_dict()
        assert split_experts(model) == 2 and split_experts(model) == 0
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-5)
        join_experts(model)
    after = model.state_dict()
    assert after.keys() == weights.keys() and all(torch.equal(after[name], weights[name]) for name in after)


def test_what_is_refused(tmp_path: Path, base: BaseModel) -> None:
    with pytest.raises(SettingError, match=r"load_in_4bit: true: .* Set llama4_linearized_experts: true"):
        quantized(tmp_path / "without the key", base, load_in_4bit=True)
    with pytest.raises(SettingError, match=r"Set load_in_4bit: true with llama4_linearized_experts: true"):
        quantized(tmp_path / "in 8 bits", base, load_in_8bit=True)
    with pytest.raises(SettingError, match=r"lora_target_modules: experts\.no_projs\.1: no module"):
        train(tmp_path / "unknown", base, lora_target_modules=["q_proj", "experts.no_projs.1"], **LINEARIZED)
    with pytest.raises(SettingError, match="this model is of type llama"):
        train(tmp_path / "other", llama(tmp_path / "llama"), lora_target_linear=True, **LINEARIZED)
