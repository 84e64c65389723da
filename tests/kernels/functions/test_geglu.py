"""GeGLU on a CPU: the reference, hand-derived values, and the kernels under the interpreter."""

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions.geglu import geglu, reference


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("geglu", at_least=46)


def test_hand_derived_values():
    # At g = 0: c = 1/2, gelu = 0 and gelu' = 1/2 for both forms; times up = 2 the gradient of gate is 1.
    # At g = 1 the exact form is the normal distribution function at one sigma, 0.841344746068543; the tanh
    # form is (1 + tanh(0.7978845608 * 1.044715)) / 2 = 0.841191990607477.
    for approximate, at_one in (("none", 0.841344746068543), ("tanh", 0.841191990607477)):
        gate = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
        up = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
        out = geglu(gate, up, approximate)
        out.sum().backward()
        assert out.tolist() == pytest.approx([0.0, 2 * at_one], rel=1e-12)
        assert gate.grad[0].item() == pytest.approx(1.0, rel=1e-14)
        assert up.grad.tolist() == pytest.approx([0.0, at_one], rel=1e-12)


def test_unknown_approximation():
    with pytest.raises(ValueError, match="approximate must be one of"):
        geglu(torch.ones(2), torch.ones(2), "cubic")


def test_the_reference_runs_on_a_cpu():
    gate, up = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    assert torch.equal(geglu(gate, up), reference(gate, up))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"one shape, got \(2, 3\) and \(2, 4\)"):
        geglu(torch.ones(2, 3), torch.ones(2, 4))
