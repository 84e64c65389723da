"""What proves a replacement: nothing wrong passes, at any dtype, in any gradient."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.families import LORA, make_family, with_lora
from torch import Tensor, nn

from tunemill.kernels.functions import lora_o, lora_qkv, rms_norm
from tunemill.kernels.in_models.apply import apply_kernels
from tunemill.kernels.in_models.proof import UnfitError, check_close, tolerance_of
from tunemill.stages.training.kernels.surroundings_body import Transformers, use_kernels

PLAIN = nn.Linear(2, 2)
EIGHT_BIT = nn.ParameterList([nn.Parameter(torch.ones(2, dtype=torch.int8), requires_grad=False)])
VALUES = torch.tensor([1.0, -2.0, 3.0])


@pytest.mark.parametrize(
    ("module", "dtype"),
    [
        (PLAIN, torch.float64),
        (PLAIN, torch.float32),
        (PLAIN, torch.float16),
        (PLAIN, torch.bfloat16),
        (EIGHT_BIT, torch.float32),
    ],
)
def test_a_fifth_is_never_rounding(module: nn.Module, dtype: torch.dtype) -> None:
    expected, tolerance = VALUES.to(dtype), tolerance_of(module, dtype)
    check_close("y", expected, expected, tolerance)
    with pytest.raises(UnfitError, match="y differs"):
        check_close("y", 1.2 * expected, expected, tolerance)


def test_eight_bit_layers_round_their_inputs_too() -> None:
    check_close("y", 1.05 * VALUES, VALUES, tolerance_of(EIGHT_BIT, torch.bfloat16))


def test_under_autocast_its_rounding_counts() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert tolerance_of(PLAIN, torch.float32) == tolerance_of(PLAIN, torch.bfloat16)
    assert tolerance_of(PLAIN, torch.float32) < tolerance_of(PLAIN, torch.bfloat16)


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (VALUES.double(), r"y is torch.float64 \(3,\), not torch.float32 \(3,\)"),
        (VALUES[None], r"y is torch.float32 \(1, 3\), not torch.float32 \(3,\)"),
        (VALUES * torch.nan, "y differs: relative error nan"),
    ],
)
def test_another_dtype_shape_or_no_number(actual: Tensor, message: str) -> None:
    with pytest.raises(UnfitError, match=message):
        check_close("y", actual, VALUES, 0.1)


def test_a_wrong_gradient_behind_second_factors_that_are_still_zero() -> None:
    def wrong(x: Tensor, output: Any) -> Tensor:
        lora_a = 2.0 * output.lora_a - output.lora_a.detach()
        return lora_o.reference(x, replace(output, lora_a=lora_a))

    model = get_peft_model(make_family("llama"), LoraConfig(**LORA))
    applied = apply_kernels(model, {"lora_o": wrong}, Transformers())
    assert "lora_A.default.weight differs" in next(iter(applied.refusals["lora_o"].values()))


def test_a_gradient_that_is_right_only_on_average() -> None:
    def wrong(x: Tensor, weight: Tensor, eps: float, *, offset: float) -> Any:
        y: Any = rms_norm.reference(x, weight, eps, offset=offset)
        mean = y.mean(-1, keepdim=True)
        return (y - mean).detach() + mean

    applied = apply_kernels(make_family("llama"), {"rms_norm": wrong}, Transformers())
    assert not applied.places
    assert "gradient of" in applied.refusals["rms_norm"]["model.norm"]


def test_kernels_are_proven_under_the_autocast_of_training() -> None:
    seen: list[bool] = []
    model = make_family("llama")
    model.register_forward_pre_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    for dtype in (None, torch.bfloat16):
        use_kernels(model, ("swiglu",), autocast_dtype=dtype).undo()
    assert seen == [False, True]


def attending_to_one_place(sharpness: float) -> Any:
    """A model in bfloat16 whose softmax is so steep that a rounding changes gradients by a tenth, or wholly."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 256}
    model = with_lora(make_family("llama", dtype=torch.bfloat16, **sizes))
    for name, parameter in model.named_parameters():
        if name.endswith(("q_proj.base_layer.weight", "k_proj.base_layer.weight")):
            parameter.data.mul_(sharpness)
    return model


@pytest.mark.parametrize("sharpness", [8.0, 16.0])
def test_rounding_that_attention_makes_much_of_is_still_rounding(sharpness: float) -> None:
    model = attending_to_one_place(sharpness)
    applied = apply_kernels(model, {"lora_qkv": lora_qkv.fused}, Transformers())
    assert not any(applied.refusals.values()), applied.refusals
    assert applied.places["lora_qkv"]


@pytest.mark.parametrize("wrong", [0, 1, 2], ids=["q", "k", "v"])
@pytest.mark.parametrize("backward_only", [False, True])
def test_a_tenth_is_no_rounding_there_either(wrong: int, backward_only: bool) -> None:
    def function(*arguments: Any) -> Any:
        parts = list(lora_qkv.fused(*arguments))
        off = 1.1 * parts[wrong]
        parts[wrong] = off - 0.1 * parts[wrong].detach() if backward_only else off
        return tuple(parts)

    applied = apply_kernels(attending_to_one_place(16.0), {"lora_qkv": function}, Transformers())
    assert not applied.places
    assert "differs" in next(iter(applied.refusals["lora_qkv"].values()))
