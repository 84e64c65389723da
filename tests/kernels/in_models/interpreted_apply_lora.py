"""Adapters of every kind in a whole tiny model, with kernels and without. Run by test_apply.py."""

from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from support.families import LORA, assert_same_step, make_family, packed_batch, shake, step, with_lora
from torch import nn

from tunemill.kernels.functions import lora_mlp, lora_o, lora_qkv
from tunemill.kernels.functions.triton_runtime import interpreted
from tunemill.kernels.in_models.apply import KERNELS, apply_kernels
from tunemill.stages.training.kernels.surroundings_body import Transformers, use_kernels

ADAPTERS = ("lora_mlp", "lora_qkv", "lora_o")
# bitsandbytes' CPU code needs rows of whole blocks of 64 to agree with its CUDA code.
WIDE = {"hidden_size": 64, "intermediate_size": 128}
BATCH = packed_batch(5, 4)


def quantized(model: Any, layer: Any) -> Any:
    """The model with every linear layer but the head stored by bitsandbytes."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and "lm_head" not in name:
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, layer(module).to("cpu"))
    return model


def four_bit(linear: nn.Linear) -> nn.Module:
    made = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=torch.float32,
        quant_type="nf4",
        compress_statistics=True,
    )
    made.weight = bnb.nn.Params4bit(
        linear.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=made
    )
    made.bias = linear.bias
    # A CPU with these instructions would reorder the codes at the first evaluation.
    made.support_avx512bf16_for_cpu = False
    return made


def eight_bit(linear: nn.Linear) -> nn.Module:
    made = bnb.nn.Linear8bitLt(
        linear.in_features, linear.out_features, bias=linear.bias is not None, has_fp16_weights=False
    )
    made.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    made.bias = linear.bias
    return made


def used(applied: Any) -> set[str]:
    assert not any(applied.refusals.values()), applied.refusals
    return set(applied.places)


def test_the_interpreter_is_on() -> None:
    assert interpreted


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"r": 1}], ids=str
)
def test_kinds_of_adapters(settings: dict[str, Any]) -> None:
    model = with_lora(make_family("qwen2"), **settings)
    plain = step(model, BATCH)
    assert used(use_kernels(model, ADAPTERS)) == set(ADAPTERS)
    assert_same_step(step(model, BATCH), plain, 5e-5)


def test_four_bit_base() -> None:
    model = with_lora(quantized(make_family("llama", **WIDE), four_bit))
    plain = step(model, BATCH)
    assert used(use_kernels(model, ADAPTERS)) == set(ADAPTERS)
    assert_same_step(step(model, BATCH), plain, 5e-5)


def test_eight_bit_base() -> None:
    model = with_lora(quantized(make_family("llama", **WIDE), eight_bit))
    plain = step(model, BATCH)
    assert used(use_kernels(model, ADAPTERS)) == set(ADAPTERS)
    assert_same_step(step(model, BATCH), plain, 5e-5)


def test_dropout_draws_what_the_reference_draws() -> None:
    references = {
        "lora_mlp": lora_mlp.reference,
        "lora_qkv": lora_qkv.reference,
        "lora_o": lora_o.reference,
    }
    steps = []
    for functions in (references, {name: KERNELS[name] for name in ADAPTERS}):
        model = with_lora(make_family("llama"), lora_dropout=0.4)
        assert used(apply_kernels(model, functions, Transformers())) == set(ADAPTERS)
        torch.manual_seed(5)
        steps.append(step(model, BATCH))
    assert_same_step(steps[1], steps[0])
    assert abs(step(model, BATCH)[0] - steps[1][0]) > 1e-4, "another draw, another loss"
    model.eval()
    assert step(model, BATCH)[0] == step(model, BATCH)[0]


def test_dropout_is_recomputed_under_gradient_checkpointing() -> None:
    model = with_lora(make_family("llama"), lora_dropout=0.4)
    use_kernels(model, ADAPTERS)
    torch.manual_seed(5)
    plain = step(model, BATCH)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.manual_seed(5)
    assert_same_step(step(model, BATCH), plain, 1e-6)


def test_an_adapter_switched_off_merged_or_doubled() -> None:
    model = with_lora(make_family("llama"))
    plain = step(model, BATCH)
    use_kernels(model, ADAPTERS)

    def loss() -> float:
        with torch.no_grad():
            found: torch.Tensor = model(**BATCH, use_cache=False).loss
        return found.item()

    with model.disable_adapter():
        base = make_family("llama")(**BATCH, use_cache=False).loss.item()
        assert loss() == pytest.approx(base, rel=1e-6)
        assert abs(base - plain[0]) > 1e-3
    model.merge_adapter()
    assert loss() == pytest.approx(plain[0], rel=1e-5)
    model.unmerge_adapter()
    assert_same_step(step(model, BATCH), plain, 5e-5)
    from peft import LoraConfig

    model.add_adapter("other", LoraConfig(**LORA))
    shake(model, only=".other.")
    model.base_model.set_adapter(["default", "other"])
    both = loss()
    assert abs(both - plain[0]) > 1e-3
    model.base_model.set_adapter("default")
    assert loss() == pytest.approx(plain[0], rel=1e-5)


def test_only_some_layers_and_projections() -> None:
    model = with_lora(
        make_family("llama", num_hidden_layers=2),
        target_modules=["q_proj", "v_proj", "down_proj"],
        layers_to_transform=[1],
    )
    plain = step(model, BATCH)
    applied = use_kernels(model, ADAPTERS)
    assert {name: [p.split("layers.")[1] for p in places] for name, places in applied.places.items()} == {
        "lora_qkv": ["1.self_attn"],
        "lora_mlp": ["1.mlp"],
    }
    assert_same_step(step(model, BATCH), plain, 5e-5)
