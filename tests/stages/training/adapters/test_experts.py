"""Experts in 4 and 8 bits: rounded once, packed while training, and merged as they were trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from stages.training.adapters.adapted import llama, model_of, train, train_and_merge
from stages.training.adapters.test_kinds import ATTENTION, SMALL, mixtral, qwen3_moe
from support.quantized import quantized
from support.tiny_model import folder_bytes
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from tunemill.stages.errors import SettingError
from tunemill.stages.models.experts_body import FromInt8, expert_parameters, pack_experts, round_experts

# Relative sizes of rounding errors between which each way of storing lies.
ERRORS = {"nf4": (0.02, 0.15), "int8": (0.001, 0.01)}


@pytest.mark.parametrize("bits", ERRORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_what_is_rounded_and_packed_computes_the_same(tmp_path: Path, bits: Any, dtype: torch.dtype) -> None:
    base = model_of(tmp_path / "base", qwen3_moe())
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=dtype).eval()
    before = {name: getattr(module, part).clone() for name, module, part in expert_parameters(model, bits)}
    assert len(before) == 4 and round_experts(model, bits) == 4
    rounded = {name: getattr(module, part).clone() for name, module, part in expert_parameters(model, bits)}
    low, high = ERRORS[bits]
    for name, old in before.items():
        error = (rounded[name] - old).float().pow(2).mean().sqrt() / old.float().pow(2).mean().sqrt()
        assert low < float(error) < high
    ids = torch.arange(3, 60).reshape(3, 19)
    held = sum(parameter.nbytes for parameter in model.parameters())
    with torch.no_grad():
        expected = model(ids).logits
        model.requires_grad_(False)
        assert pack_experts(model, bits) == 4
        assert not list(expert_parameters(model, bits))
        assert torch.equal(model(ids).logits, expected)
        model.set_experts_implementation("eager")
        one_by_one = model(ids).logits
        assert float((one_by_one - expected).abs().max()) < 0.05 * float(expected.abs().max())
    assert sum(parameter.nbytes for parameter in model.parameters()) < held


def test_one_scale_for_each_row_of_an_expert(tmp_path: Path) -> None:
    """Of a row the largest size is kept, and each value is off by at most half a step of 127."""
    base = model_of(tmp_path / "base", qwen3_moe())
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    _, module, part = next(iter(expert_parameters(model, "int8")))
    with torch.no_grad():
        getattr(module, part)[0, 0] *= 100
        getattr(module, part)[1, 2] = 0
    before = getattr(module, part).half().float()
    round_experts(model, "int8")
    after = getattr(module, part)
    step = before.abs().amax(-1, keepdim=True) / 127
    assert torch.all((after - before).abs() <= step * 0.501)
    assert torch.allclose(after.abs().amax(-1), before.abs().amax(-1), rtol=1e-6)


def test_packed_experts_are_unpacked_once_in_a_pass(tmp_path: Path) -> None:
    """Also where each expert is computed by itself, and where a checkpoint leaves its second pass early."""
    base = model_of(tmp_path / "base", qwen3_moe())
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).train()
    model.set_experts_implementation("eager")
    round_experts(model, "int8")
    model.requires_grad_(False)
    pack_experts(model, "int8")
    counted: list[int] = []
    for module in model.modules():
        if isinstance(module, FromInt8):
            module.register_forward_hook(lambda *_: counted.append(1))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.arange(3, 41).reshape(2, 19)
    for times in (1, 2):
        model(input_ids=ids, labels=ids).loss.backward()
        # Four parameters, in each of two passes.
        assert len(counted) == 8 * times
    assert not torch.nn.utils.parametrize._cache_enabled and not torch.nn.utils.parametrize._cache


@pytest.mark.slow
@pytest.mark.parametrize("targets", first_in_ci({"lora_target_linear": True}, ATTENTION), ids=str)
@pytest.mark.parametrize("bits", [4, 8])
def test_they_are_trained_beside_and_merged(tmp_path: Path, bits: int, targets: dict[str, Any]) -> None:
    base = model_of(tmp_path / "base", mixtral())
    before = folder_bytes(base.path)
    asked = {f"load_in_{bits}bit": True}
    frozen, heard = quantized(tmp_path / "frozen", base, **asked, quantize_moe_experts=True)
    assert f"4 parameters are rounded to {bits} bits" in heard.of("log")[0]["message"]
    kept = folder_bytes(frozen.path)
    _, packed = train(tmp_path / "packed", frozen, **asked, quantize_moe_experts=True, **targets)
    assert folder_bytes(frozen.path) == kept
    _, plain = train(tmp_path / "plain", frozen, **asked, **targets)
    assert packed.steps("loss") == pytest.approx(plain.steps("loss"), rel=1e-4)
    data, _, heard = train_and_merge(
        tmp_path, base, bits=bits, rounded_experts=True, quantize_moe_experts=True, **targets
    )
    assert folder_bytes(base.path) == before
    of_trained = heard.summary["max_abs_logit_difference_from_trained"]
    assert heard.summary["max_abs_logit_difference_from_unquantized"] > max(0.1 / bits, 10 * of_trained)
    name = next(name for name in load_file(base.path / "model.safetensors") if ".experts.0." in name)
    old, rounded, new = (
        load_file(folder / "model.safetensors")[name] for folder in (base.path, frozen.path, data)
    )
    assert not torch.equal(old, rounded)
    assert torch.equal(rounded, new) is (targets is ATTENTION)


def test_rows_of_any_length_go_into_8_bits(tmp_path: Path) -> None:
    config = Qwen3MoeConfig(
        **SMALL, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=24, head_dim=32
    )
    base = model_of(tmp_path / "base", config)
    for bits, count in ((4, 2), (8, 4)):
        _, heard = quantized(
            tmp_path / str(bits), base, **{f"load_in_{bits}bit": True}, quantize_moe_experts=True
        )
        assert f"{count} parameters are rounded to {bits} bits" in heard.of("log")[0]["message"]


@pytest.mark.parametrize("bits", ["load_in_4bit", "load_in_8bit"])
def test_a_model_without_experts(tmp_path: Path, bits: str) -> None:
    base = llama(tmp_path / "base")
    with pytest.raises(SettingError, match="LlamaForCausalLM has no parameter of experts"):
        quantized(tmp_path / "frozen", base, **{bits: True}, quantize_moe_experts=True)
    frozen, _ = quantized(tmp_path / "first", base, **{bits: True})
    with pytest.raises(SettingError, match="quantize_moe_experts: true, but the base is quantized already"):
        quantized(tmp_path / "twice", frozen, **{bits: True}, quantize_moe_experts=True)
