"""`lora_qkv`: one autograd function against three plain projections."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.lora import assert_close, clone, int8_projection, leaves, projection
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunemill.kernels.functions import lora_qkv as kernel
from tunemill.kernels.functions.lora_linear import Projection

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 5e-2, torch.float16: 6e-3}
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "dropout": {"dropout": 0.4},
    "dora, dropout": {"dora": True, "dropout": 0.4},
    "frozen base, no bias": {"trained_base": False, "bias": False},
}


def three(inputs: int, heads: int, shared: int, **settings: Any) -> tuple[Projection, Projection, Projection]:
    """Query wider than key and value, as in grouped-query attention."""
    return (
        projection(inputs, heads, seed=1, **settings),
        projection(inputs, shared, seed=2, **settings),
        projection(inputs, shared, seed=3, rank=2, **settings),
    )


def run(function: Any, x: Tensor, projections: tuple[Projection, ...]) -> list[tuple[str, Tensor]]:
    x = x.detach().requires_grad_()
    torch.manual_seed(7)
    outputs = function(x, *projections)
    draw = torch.Generator().manual_seed(1)
    upstream = [torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y.dtype) for y in outputs]
    named = [("x", x), *leaves(*projections)]
    grads = torch.autograd.grad(outputs, [t for _, t in named], upstream)
    found = [(f"output {i}", y.detach()) for i, y in enumerate(outputs)]
    return found + [(name, grad) for (name, _), grad in zip(named, grads, strict=True)]


@pytest.mark.parametrize("lead", [(1,), (2, 5)], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_autograd(variant: str, lead: tuple[int, ...]) -> None:
    projections = three(13, 12, 4, **VARIANTS[variant])
    x = torch.randn(*lead, 13, dtype=torch.float64)
    assert_close(run(kernel.fused, x, projections), run(kernel.reference, x, projections), 1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_each_dtype_against_float64(dtype: torch.dtype) -> None:
    projections = three(33, 20, 5, dtype=dtype)
    x = torch.randn(19, 33).to(dtype)
    wide = tuple(clone(p, torch.float64) for p in projections)
    assert_close(run(kernel.fused, x, projections), run(kernel.reference, x.double(), wide), TOLERANCE[dtype])


def test_a_projection_without_an_adapter_takes_part() -> None:
    query, _, value = three(9, 6, 3)
    projections = (query, projection(9, 3, adapter=False, trained_base=False), value)
    x = torch.randn(5, 9, dtype=torch.float64)
    assert_close(run(kernel.fused, x, projections), run(kernel.reference, x, projections), 1e-10)


def test_int8_base() -> None:
    projections = tuple(int8_projection(16, n, dtype=torch.float64, seed=n) for n in (8, 4, 5))
    x = torch.randn(5, 16, dtype=torch.float64)
    assert_close(run(kernel.fused, x, projections), run(kernel.reference, x, projections), 1e-10)


def test_outputs_that_nobody_uses() -> None:
    projections = three(9, 6, 3)
    x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    grads = [
        torch.autograd.grad(f(x, *projections)[1].sum(), [x, projections[1].lora_a, projections[1].lora_b])
        for f in (kernel.fused, kernel.reference)
    ]
    assert all(torch.allclose(a, b) for a, b in zip(*grads, strict=True))


def test_gradcheck() -> None:
    projections = three(4, 4, 2)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        changed = [
            replace(p, lora_a=a, lora_b=b)
            for p, a, b in zip(projections, tensors[::2], tensors[1::2], strict=True)
        ]
        return kernel.fused(x, *changed)

    adapters = [t for p in projections for t in (p.lora_a, p.lora_b)]
    assert torch.autograd.gradcheck(function, (x, *adapters))


def test_checkpointing_and_compiling_change_nothing() -> None:
    projections = three(9, 6, 3)
    x = torch.randn(5, 9, dtype=torch.float64)
    expected = run(kernel.fused, x, projections)
    assert_close(
        run(lambda *a: checkpoint(kernel.fused, *a, use_reentrant=False), x, projections), expected, 0.0
    )
    compiled = torch.compile(kernel.fused, backend="aot_eager", fullgraph=True)
    assert_close(run(compiled, x, projections), expected, 1e-12)


def test_public_function_runs_its_reference_on_cpu() -> None:
    projections = three(9, 6, 3)
    x = torch.randn(5, 9, dtype=torch.float64)
    for actual, expected in zip(
        kernel.lora_qkv(x, *projections), kernel.reference(x, *projections), strict=True
    ):
        assert torch.equal(actual, expected)
