"""Random LoRA projections for the kernel tests."""

from __future__ import annotations

import torch
from torch import Tensor

from tunemill.kernels.functions.lora_linear import Projection, dequantize_int8

NAMES = ("weight", "bias", "lora_a", "lora_b", "magnitude")


def projection(
    inputs: int,
    outputs: int,
    *,
    rank: int = 3,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    bias: bool = True,
    dora: bool = False,
    dropout: float = 0.0,
    adapter: bool = True,
    trained_base: bool = True,
) -> Projection:
    """A projection with leaves that require gradients; lora_b is not zero, so every gradient counts."""
    draw = torch.Generator().manual_seed(seed)

    def leaf(*shape: int, scale: float = 1.0, grad: bool = True) -> Tensor:
        values = torch.randn(*shape, generator=draw, dtype=torch.float64) * scale
        return values.to(dtype).requires_grad_(grad)

    weight = leaf(outputs, inputs, scale=inputs**-0.5, grad=trained_base)
    return Projection(
        weight=weight,
        bias=leaf(outputs, grad=trained_base) if bias else None,
        lora_a=leaf(rank, inputs, scale=inputs**-0.5) if adapter else None,
        lora_b=leaf(outputs, rank, scale=rank**-0.5) if adapter else None,
        magnitude=(weight.detach().norm(dim=1) * 1.1 + 0.1).requires_grad_() if dora else None,
        scaling=0.7,
        dropout=dropout,
    )


def clone(source: Projection, dtype: torch.dtype) -> Projection:
    """The same numbers as leaves in another dtype."""
    tensors = {}
    for name in NAMES:
        tensor = getattr(source, name)
        tensors[name] = (
            None if tensor is None else tensor.detach().to(dtype).requires_grad_(tensor.requires_grad)
        )
    return Projection(**tensors, scaling=source.scaling, dropout=source.dropout, dequantize=source.dequantize)


def leaves(*projections: Projection) -> list[tuple[str, Tensor]]:
    """Every tensor that requires a gradient, with a name for failure reports."""
    found = []
    for index, one in enumerate(projections):
        for name in NAMES:
            tensor = getattr(one, name)
            if tensor is not None and tensor.requires_grad:
                found.append((f"{index}.{name}", tensor))
    return found


def int8_projection(inputs: int, outputs: int, *, dtype: torch.dtype, seed: int = 0) -> Projection:
    """A projection over a row-wise int8 base, as bitsandbytes' 8-bit layers store it."""
    dense = projection(inputs, outputs, dtype=dtype, seed=seed, trained_base=False)
    scale_n = dense.weight.abs().amax(1).float()
    stored = (dense.weight.float() / scale_n.unsqueeze(1) * 127.0).round().to(torch.int8)
    return Projection(
        weight=stored,
        bias=dense.bias,
        lora_a=dense.lora_a,
        lora_b=dense.lora_b,
        scaling=dense.scaling,
        dequantize=lambda weight: dequantize_int8(weight, scale_n, dtype),
    )


def assert_close(
    actual: list[tuple[str, Tensor]], expected: list[tuple[str, Tensor]], tolerance: float
) -> None:
    """Named tensors, one by one: the error relative in the Euclidean norm."""
    for (name, left), (_, right) in zip(actual, expected, strict=True):
        assert left.shape == right.shape, name
        error = (left.double() - right.double()).norm() / right.double().norm().clamp_min(1e-30)
        assert error <= tolerance, f"{name}: relative error {error:.3g} > {tolerance}"
