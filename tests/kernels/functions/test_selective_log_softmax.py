"""The selective log-softmax on a CPU: the reference, hand-derived values, and the kernels interpreted."""

import math

import pytest
import torch
from support.interpreter import run_interpreted

from tunemill.kernels.functions.selective_log_softmax import reference, selective_log_softmax


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("selective_log_softmax", at_least=40)


def test_hand_derived_values():
    # p = (1/2, 1/4, 1/4); the gradient of log p_1 is (-1/2, 1 - 1/4, -1/4).
    logits = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64).log().requires_grad_()
    out = selective_log_softmax(logits, torch.tensor(1))
    out.backward()
    assert out.item() == pytest.approx(-math.log(4), rel=1e-14)
    assert logits.grad.tolist() == pytest.approx([-0.5, 0.75, -0.25], rel=1e-14)


def test_the_reference_runs_on_a_cpu():
    logits, index = torch.randn(2, 3, 5, dtype=torch.bfloat16), torch.randint(5, (2, 3))
    assert torch.equal(selective_log_softmax(logits, index), reference(logits, index))
    several = reference(logits, torch.stack([index, index], dim=-1))
    assert torch.equal(several[..., 1], reference(logits, index))


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.zeros(3, dtype=torch.int64), "shape of logits without its last dimension, or one more"),
        (torch.zeros(2, 1, 1, dtype=torch.int64), "shape of logits without its last dimension, or one more"),
        (torch.zeros(2, dtype=torch.int32), "token ids are torch.int64"),
    ],
)
def test_an_index_that_does_not_fit(index, message):
    with pytest.raises(ValueError, match=message):
        selective_log_softmax(torch.ones(2, 5), index)
