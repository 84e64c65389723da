"""`lora_mlp`: the autograd function against plain autograd, without Triton; with it in interpreted_lora_mlp.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.interpreter import run_interpreted
from support.lora import assert_close, clone, int8_projection, projection
from support.lora_mlp import ACTIVATIONS, VARIANTS, run, three
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunemill.kernels.functions import lora_mlp as kernel

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 5e-2, torch.float16: 6e-3}


@pytest.mark.slow
def test_under_the_interpreter() -> None:
    run_interpreted("lora_mlp", at_least=15)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_plain_autograd(variant: str, activation: str) -> None:
    projections = three(9, 13, **VARIANTS[variant])
    x = torch.randn(2, 5, 9, dtype=torch.float64)
    expected = run(kernel.reference, x, projections, activation)
    assert_close(run(kernel.fused, x, projections, activation), expected, 1e-10)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_each_dtype_against_float64(dtype: torch.dtype) -> None:
    projections = three(33, 65, dtype=dtype)
    x = torch.randn(19, 33).to(dtype)
    wide = tuple(clone(p, torch.float64) for p in projections)
    expected = run(kernel.reference, x.double(), wide)
    assert_close(run(kernel.fused, x, projections), expected, TOLERANCE[dtype])


def test_gradcheck() -> None:
    projections = three(4, 5)
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def function(x: Tensor, *tensors: Tensor) -> Tensor:
        pairs = zip(projections, tensors[::2], tensors[1::2], strict=True)
        return kernel.fused(x, *(replace(p, lora_a=a, lora_b=b) for p, a, b in pairs))

    adapters = [t for p in projections for t in (p.lora_a, p.lora_b)]
    assert torch.autograd.gradcheck(function, (x, *adapters))


def test_one_adapter_over_int8_bases() -> None:
    stored = [int8_projection(k, n, dtype=torch.float64, seed=n) for k, n in ((8, 12), (8, 12), (12, 8))]
    projections = (stored[0], replace(stored[1], lora_a=None, lora_b=None), stored[2])
    x = torch.randn(5, 8, dtype=torch.float64)
    assert_close(run(kernel.fused, x, projections), run(kernel.reference, x, projections), 1e-10)


def test_saves_no_hidden_activation() -> None:
    projections = three(9, 13, trained_base=False, bias=False)
    x = torch.randn(5, 9, dtype=torch.float64, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        kernel.fused(x, *projections)
    assert [tuple(t.shape) for t in saved].count((5, 13)) == 2  # gate and up


def test_checkpointing_and_compiling_change_nothing() -> None:
    projections = three(9, 13, dora=True)
    x = torch.randn(5, 9, dtype=torch.float64)
    expected = run(kernel.fused, x, projections)
    again = run(lambda *a: checkpoint(kernel.fused, *a, use_reentrant=False), x, projections)
    assert_close(again, expected, 0.0)
    compiled = torch.compile(kernel.fused, backend="aot_eager", fullgraph=True)
    assert_close(run(compiled, x, projections), expected, 1e-12)


def test_public_function_runs_its_reference_on_cpu() -> None:
    projections = three(9, 13)
    x = torch.randn(5, 9, dtype=torch.float64)
    assert torch.equal(kernel.lora_mlp(x, *projections), kernel.reference(x, *projections))


def test_what_does_not_fit_is_refused() -> None:
    projections = three(9, 13)
    x = torch.randn(5, 9, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"activation must be one of .* got 'relu'"):
        kernel.lora_mlp(x, *projections, activation="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="does not take inputs of width 13"):
        kernel.fused(x, projections[0], projections[1], projection(12, 9))
