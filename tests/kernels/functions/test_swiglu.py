"""SwiGLU on a CPU: the reference, hand-derived values, and the kernels under the interpreter."""

import math

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions.swiglu import reference, swiglu


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("swiglu", at_least=30)


def test_hand_derived_values():
    # silu(ln 3) = ln 3 * 3 / (1 + 3) = 0.75 ln 3; times up = 2 gives 1.5 ln 3.
    # s (1 + g (1 - s)) = 0.75 (1 + ln 3 / 4); times up = 2 gives 1.5 + 0.375 ln 3.
    gate = torch.tensor([math.log(3)], dtype=torch.float64, requires_grad=True)
    up = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    out = swiglu(gate, up)
    out.backward()
    assert out.item() == pytest.approx(1.5 * math.log(3), rel=1e-14)
    assert gate.grad.item() == pytest.approx(1.5 + 0.375 * math.log(3), rel=1e-14)
    assert up.grad.item() == pytest.approx(0.75 * math.log(3), rel=1e-14)


def test_the_reference_runs_on_a_cpu():
    gate, up = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert torch.equal(swiglu(gate, up), reference(gate, up))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 4\)"):
        swiglu(torch.ones(2, 3), torch.ones(2, 4))
