"""RMSNorm on a CPU: the reference, hand-derived values, and the kernels under the interpreter."""

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions.rms_norm import reference, rms_norm


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("rms_norm", at_least=57)


def test_hand_derived_values():
    # x = (3, 4), eps = 0: mean(x^2) = 12.5, rstd = 1 / sqrt 12.5 = 0.2828427; weight (1, 2), offset 1:
    # y = (3 * 2, 4 * 3) * 0.2828427 = (1.6970563, 3.3941125).
    # dy = (1, 0): w = (2, 0); mean(w h) = 3; dx = rstd (w - h * 0.08 * 3) = rstd (1.28, -0.96).
    # d_weight = dy h rstd = (0.8485281, 0).
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = rms_norm(x, weight, 0.0, offset=1.0)
    y[0, 0].backward()
    rstd = 12.5**-0.5
    assert y[0].tolist() == pytest.approx([6 * rstd, 12 * rstd], rel=1e-14)
    assert x.grad[0].tolist() == pytest.approx([1.28 * rstd, -0.96 * rstd], rel=1e-12)
    assert weight.grad.tolist() == pytest.approx([3 * rstd, 0.0], rel=1e-14)


def test_a_residual_is_added_first_and_returned():
    x, residual, weight = torch.randn(2, 5), torch.randn(2, 5), torch.randn(5)
    y, h = rms_norm(x, weight, 1e-6, residual=residual)
    assert torch.equal(h, x + residual)
    assert torch.equal(y, reference(x + residual, weight, 1e-6))


def test_pytorch_agrees():
    x, weight = torch.randn(3, 7), torch.randn(7)
    torch.testing.assert_close(rms_norm(x, weight, 1e-6), torch.nn.functional.rms_norm(x, (7,), weight, 1e-6))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"weight must have shape \(3,\), got \(4,\)"):
        rms_norm(torch.ones(2, 3), torch.ones(4), 1e-6)
    with pytest.raises(ValueError, match="residual must have the shape of x"):
        rms_norm(torch.ones(2, 3), torch.ones(3), 1e-6, residual=torch.ones(3))
