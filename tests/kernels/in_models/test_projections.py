"""Which layers are read as projections, and which have to be called."""

from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from support.families import LORA, assert_same_step, make_family, packed_batch, shake, step, with_lora
from torch import nn

from tunemill.kernels.in_models.projections import is_linear, projection
from tunemill.stages.training.kernels.surroundings_body import use_kernels

ADAPTERS = ("lora_mlp", "lora_qkv", "lora_o")
BATCH = packed_batch(5, 4)


ATTACH: list[Callable[[Any], Any]] = [
    lambda layer: layer.register_forward_hook(print),
    lambda layer: layer.register_forward_pre_hook(print),
    lambda layer: layer.register_full_backward_hook(print),
    lambda layer: layer.register_full_backward_pre_hook(print),
    lambda layer: setattr(layer, "forward", layer.forward),
]


@pytest.mark.parametrize("attach", ATTACH)
def test_what_else_runs_with_an_adapter(attach: Callable[[Any], Any]) -> None:
    layer = with_lora(make_family("llama")).base_model.model.model.layers[0].mlp.up_proj
    assert projection(layer) is not None
    attach(layer)
    assert projection(layer) is None


@pytest.mark.parametrize("attach", ATTACH)
def test_what_else_runs_with_a_linear_layer(attach: Callable[[Any], Any]) -> None:
    layer = nn.Linear(3, 2)
    assert is_linear(layer)
    attach(layer)
    assert not is_linear(layer)


@pytest.mark.parametrize(("quant_type", "reordered"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_four_bits_are_read_in_one_format_only(quant_type: str, reordered: bool) -> None:
    layer = bnb.nn.Linear4bit(64, 8, quant_type=quant_type, compute_dtype=torch.float32).to("cpu")
    layer.weight.quant_state.packing_format_for_cpu = reordered
    assert (projection(layer) is None) == (quant_type != "nf4" or reordered)


def test_eight_bits_are_read_before_and_after_the_first_call() -> None:
    layer = bnb.nn.Linear8bitLt(64, 8, bias=False, has_fp16_weights=False)
    dense = layer.weight.data.clone()
    layer.to("cpu")
    for _ in range(2):
        one = projection(layer)
        assert one is not None
        assert one.dequantize is not None
        torch.testing.assert_close(one.dequantize(one.weight), dense, atol=6e-4, rtol=0.0)
        layer(torch.ones(1, 64))


@pytest.mark.parametrize(
    "settings",
    [{}, {"use_dora": True}, {"use_rslora": True}, {"bias": "all"}, {"lora_dropout": 0.3}],
    ids=str,
)
def test_adapters_are_read(settings: dict[str, Any]) -> None:
    model = with_lora(make_family("llama"), **settings)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    one = projection(layer)
    assert one is not None
    assert one.lora_a is layer.lora_A["default"].weight
    assert (one.magnitude is not None) == ("use_dora" in settings)
    assert one.dropout == settings.get("lora_dropout", 0.0)


def bias_of_the_adapter(model: Any) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith("lora_B.default.weight"):
            factor = model.get_submodule(name.removesuffix(".weight"))
            factor.bias = nn.Parameter(torch.ones(parameter.shape[0]))


def dropout_of_its_own(model: Any) -> None:
    for name, module in model.named_modules():
        if name.endswith("lora_dropout"):
            module["default"] = nn.Tanh()


def some_merged(model: Any) -> None:
    layer = model.base_model.model.model.layers[0]
    for module in (layer.mlp.gate_proj, layer.self_attn.q_proj, layer.self_attn.o_proj):
        module.merge()


def another_in_a_part(model: Any) -> None:
    from peft import LoraConfig

    model.add_adapter("other", LoraConfig(**{**LORA, "target_modules": ["q_proj"]}))
    shake(model, only=".other.")
    model.set_adapter("other")


@pytest.mark.parametrize("change", [bias_of_the_adapter, dropout_of_its_own, some_merged, another_in_a_part])
def test_adapters_that_change_after_the_kernels_came(change: Callable[[Any], None]) -> None:
    steps = []
    for kernels in ((), ADAPTERS):
        model = with_lora(make_family("llama"))
        use_kernels(model, kernels)
        change(model)
        steps.append(step(model, BATCH))
    assert_same_step(steps[1], steps[0])


def test_a_variant_of_lora_is_called() -> None:
    from peft import KasaConfig

    model = with_lora(make_family("llama"), kasa_config=KasaConfig())
    plain = step(model, BATCH)
    assert not use_kernels(model, ADAPTERS).refusals
    assert_same_step(step(model, BATCH), plain)
