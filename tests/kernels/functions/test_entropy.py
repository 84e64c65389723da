"""Entropy on a CPU: the reference, hand-derived values, and the kernels under the interpreter."""

import math

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions.entropy import entropy, reference
from tunemill.kernels.functions.logit_rows import logit_rows


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("entropy", at_least=31)


def test_hand_derived_values():
    # p = (1/2, 1/4, 1/4): H = 1.5 ln 2; dH/dz = -p (log p + H) = (-ln 2 / 4, ln 2 / 8, ln 2 / 8).
    logits = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log().requires_grad_()
    out = entropy(logits)
    out.backward()
    assert out.item() == pytest.approx(1.5 * math.log(2), rel=1e-14)
    assert logits.grad.tolist() == pytest.approx([math.log(2) * x for x in (-1 / 4, 1 / 8, 1 / 8)], rel=1e-12)


def test_the_reference_runs_on_a_cpu():
    logits = torch.randn(2, 3, 5, dtype=torch.bfloat16)
    assert torch.equal(entropy(logits), reference(logits))
    assert entropy(logits).dtype == torch.float32


def test_a_forbidden_token_adds_nothing():
    logits = torch.tensor([[0.0, 0.0, float("-inf")]], requires_grad=True)
    out = reference(logits)
    out.sum().backward()
    assert out.item() == pytest.approx(math.log(2))
    assert logits.grad.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("logits", [torch.tensor(1.0), torch.ones(3, 0), torch.ones(3, 4, dtype=torch.int64)])
def test_what_is_no_logits(logits):
    with pytest.raises(ValueError, match=r"floating point, of shape \(\.\.\., vocabulary\)"):
        logit_rows(logits)
