"""`lora_mlp` under Triton's interpreter: its activation runs as a kernel that overwrites gate and up."""

from __future__ import annotations

import pytest
import torch
from support.lora import assert_close, clone
from support.lora_mlp import ACTIVATIONS, VARIANTS, run, three

from tunemill.kernels.functions import lora_mlp as kernel

# The interpreter truncates to bfloat16 where a GPU rounds, hence the wider bound.
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 8e-2, torch.float16: 6e-3}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_autograd(variant: str, activation: str) -> None:
    projections = three(9, 13, **VARIANTS[variant])
    x = torch.randn(2, 5, 9, dtype=torch.float64)
    expected = run(kernel.reference, x, projections, activation)
    assert_close(run(kernel.lora_mlp, x, projections, activation), expected, 1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_each_dtype_against_float64(dtype: torch.dtype) -> None:
    projections = three(17, 33, dtype=dtype)
    x = torch.randn(7, 17).to(dtype)
    wide = tuple(clone(p, torch.float64) for p in projections)
    expected = run(kernel.reference, x.double(), wide)
    assert_close(run(kernel.lora_mlp, x, projections), expected, TOLERANCE[dtype])


def test_a_graph_that_is_kept_can_run_again() -> None:
    projections = three(9, 13)
    x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    y = kernel.lora_mlp(x, *projections).square().sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    second = torch.autograd.grad(y, x)[0]
    assert torch.equal(first, second)
