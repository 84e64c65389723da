"""The LoRA kernels at sizes of real models, over dense, 8-bit and 4-bit bases, against float64."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from support.gpu import DEVICE, TOLERANCES, drawn, needs_gpu
from support.lora import NAMES, assert_close, clone, leaves, projection
from torch import Tensor

from tunemill.kernels.functions import lora_mlp, lora_o, lora_qkv, nf4
from tunemill.kernels.functions.lora_linear import Projection, dequantize_int8

pytestmark = needs_gpu

TOKENS, HIDDEN, INTERMEDIATE = 512, 2048, 5632
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"trained_base": False, "bias": False},
    "dora": {"trained_base": False, "dora": True},
    "trained base": {},
}
Function = Callable[..., Any]


def on_gpu(source: Projection) -> Projection:
    moved = {
        name: tensor.detach().to(DEVICE).requires_grad_(tensor.requires_grad)
        for name in NAMES
        if (tensor := getattr(source, name)) is not None
    }
    return replace(source, **moved)


def made(kind: str, dtype: torch.dtype, **settings: Any) -> tuple[Projection, ...]:
    """The projections of an MLP, of q, k and v, or of the output."""
    sizes = {
        "mlp": [(HIDDEN, INTERMEDIATE), (HIDDEN, INTERMEDIATE), (INTERMEDIATE, HIDDEN)],
        "qkv": [(HIDDEN, HIDDEN), (HIDDEN, 512), (HIDDEN, 512)],
        "o": [(HIDDEN, HIDDEN)],
    }[kind]
    return tuple(
        on_gpu(projection(*size, rank=16, seed=seed, dtype=dtype, **settings))
        for seed, size in enumerate(sizes)
    )


FUNCTIONS: dict[str, tuple[Function, Function]] = {
    "mlp": (lora_mlp.lora_mlp, lora_mlp.reference),
    "qkv": (lora_qkv.lora_qkv, lora_qkv.reference),
    "o": (lora_o.lora_o, lora_o.reference),
}


def run(function: Function, x: Tensor, projections: tuple[Projection, ...]) -> list[tuple[str, Tensor]]:
    """Outputs and every gradient."""
    x = x.detach().clone().requires_grad_()
    torch.manual_seed(7)
    result = function(x, *projections)
    outputs = (result,) if isinstance(result, Tensor) else result
    upstream = [drawn(*y.shape, dtype=torch.float32, seed=5, spread=1.0).to(y.dtype) for y in outputs]
    named = [("x", x), *leaves(*projections)]
    gradients = torch.autograd.grad(outputs, [tensor for _, tensor in named], upstream)
    found = [(f"output {number}", y.detach()) for number, y in enumerate(outputs)]
    return found + [(name, gradient) for (name, _), gradient in zip(named, gradients, strict=True)]


def check(
    kind: str, dtype: torch.dtype, projections: tuple[Projection, ...], exact: tuple[Projection, ...]
) -> None:
    kernel, reference = FUNCTIONS[kind]
    x = drawn(2, TOKENS // 2, HIDDEN, dtype=dtype)
    assert_close(run(kernel, x, projections), run(reference, x.double(), exact), 2 * TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_dense_base(kind: str, variant: str, dtype: torch.dtype) -> None:
    projections = made(kind, dtype, **VARIANTS[variant])
    check(kind, dtype, projections, tuple(clone(one, torch.float64) for one in projections))


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_dropout_draws_what_the_reference_draws(kind: str) -> None:
    projections = made(kind, torch.float32, dropout=0.4, trained_base=False, bias=False)
    x = drawn(TOKENS, HIDDEN, dtype=torch.float32)
    kernel, reference = FUNCTIONS[kind]
    assert_close(run(kernel, x, projections), run(reference, x, projections), 2e-5)


def four_bit(dense: Projection, dtype: torch.dtype) -> tuple[Projection, Tensor]:
    """The projection over a base in NF4, and that base as bitsandbytes reads it."""
    from bitsandbytes import functional

    stored, state = functional.quantize_4bit(
        dense.weight.to(dtype), quant_type="nf4", compress_statistics=True
    )
    stored_projection = replace(
        dense, weight=stored, dequantize=lambda packed: nf4.dequantize_nf4(packed, state)
    )
    return stored_projection, functional.dequantize_4bit(stored, state)


def eight_bit(dense: Projection, dtype: torch.dtype) -> tuple[Projection, Tensor]:
    """The projection over a row-wise int8 base, and that base."""
    scale_n = dense.weight.abs().amax(1).float()
    stored = (dense.weight.float() / scale_n.unsqueeze(1) * 127.0).round().to(torch.int8)
    read = dequantize_int8(stored, scale_n, dtype)
    return replace(dense, weight=stored, dequantize=lambda kept: dequantize_int8(kept, scale_n, dtype)), read


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("store", [four_bit, eight_bit])
@pytest.mark.parametrize("kind", FUNCTIONS)
def test_quantized_base(kind: str, store: Any, dtype: torch.dtype) -> None:
    dense = made(kind, dtype, trained_base=False, bias=False)
    stored = [store(one, dtype) for one in dense]
    exact = tuple(
        replace(clone(one, torch.float64), weight=read.double())
        for one, (_, read) in zip(dense, stored, strict=True)
    )
    check(kind, dtype, tuple(one for one, _ in stored), exact)


@pytest.mark.parametrize("nested", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize(
    ("shape", "blocksize"), [((4096, 14336), 64), ((1000, 333), 64), ((512, 4096), 4096)], ids=str
)
def test_nf4_equals_bitsandbytes_bit_for_bit(
    shape: tuple[int, int], blocksize: int, dtype: torch.dtype, nested: bool
) -> None:
    from bitsandbytes import functional

    weight = drawn(*shape, dtype=dtype, spread=0.03)
    packed, state = functional.quantize_4bit(
        weight, blocksize=blocksize, quant_type="nf4", compress_statistics=nested
    )
    expected = functional.dequantize_4bit(packed, state)
    for function in (nf4.dequantize_nf4, nf4.reference):
        actual = function(packed, state)
        different = int((actual != expected).sum())
        assert not different, f"{function.__name__}: {different} of {expected.numel()} differ"
