"""Experts in 4 bits: rounded once, packed while training, and merged as they were trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.training.adapters.adapted import llama, model_of, train, train_and_merge
from stages.training.adapters.test_kinds import ATTENTION, mixtral, qwen3_moe
from support.quantized import quantized
from transformers import AutoModelForCausalLM

from tunemill.stages.errors import SettingError
from tunemill.stages.models.experts_body import expert_parameters, pack_experts, round_experts


def test_what_is_rounded_and_packed_computes_the_same(tmp_path: Path) -> None:
    base = model_of(tmp_path / "base", qwen3_moe())
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16).eval()
    before = {name: getattr(module, part).clone() for name, module, part in expert_parameters(model)}
    assert len(before) == 4 and round_experts(model, "nf4") == 4
    rounded = {name: getattr(module, part).clone() for name, module, part in expert_parameters(model)}
    for name, old in before.items():
        error = (rounded[name] - old).float().pow(2).mean().sqrt() / old.float().pow(2).mean().sqrt()
        assert 0.02 < float(error) < 0.15
    ids = torch.arange(3, 60).reshape(3, 19)
    with torch.no_grad():
        expected = model(ids).logits
        model.requires_grad_(False)
        assert pack_experts(model, "nf4") == 4
        assert not list(expert_parameters(model))
        assert torch.equal(model(ids).logits, expected)


@pytest.mark.parametrize("targets", [ATTENTION, {"lora_target_linear": True}], ids=str)
def test_they_are_trained_beside_and_merged(tmp_path: Path, targets: dict[str, Any]) -> None:
    base = model_of(tmp_path / "base", mixtral())
    frozen, heard = quantized(tmp_path / "frozen", base, load_in_4bit=True, quantize_moe_experts=True)
    assert "4 parameters are rounded to 4 bits" in heard.of("log")[0]["message"]
    _, packed = train(tmp_path / "packed", frozen, load_in_4bit=True, quantize_moe_experts=True, **targets)
    _, plain = train(tmp_path / "plain", frozen, load_in_4bit=True, **targets)
    assert packed.steps("loss") == pytest.approx(plain.steps("loss"), rel=1e-4)
    data, _, heard = train_and_merge(
        tmp_path, base, in_4_bits=True, rounded_experts=True, quantize_moe_experts=True, **targets
    )
    assert heard.summary["max_abs_logit_difference_from_unquantized"] > 0.1
    name = next(name for name in load_file(base.path / "model.safetensors") if ".experts.0." in name)
    old, rounded, new = (
        load_file(folder / "model.safetensors")[name] for folder in (base.path, frozen.path, data)
    )
    assert not torch.equal(old, rounded)
    assert torch.equal(rounded, new) is (targets is ATTENTION)


def test_a_model_without_experts(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="LlamaForCausalLM has no parameter of experts"):
        quantized(tmp_path / "frozen", llama(tmp_path / "base"), load_in_4bit=True, quantize_moe_experts=True)
