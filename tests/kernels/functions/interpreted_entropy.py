"""Entropy's Triton kernels under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, check_against_reference, random

from tunemill.kernels.functions import logit_rows
from tunemill.kernels.functions.entropy import entropy, reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1,), (1, 1), (3, 5), (7, 129), (2, 3, 200)]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(logit_rows, "BLOCK", 64)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradient_match(shape, dtype):
    logits = random(shape, dtype, spread=3.0)
    check_against_reference(entropy, reference, [logits], scale=3)
    assert entropy(logits).dtype == torch.float32


def test_float64_and_gradcheck():
    logits = random((3, 70), torch.float64)
    check_against_reference(entropy, reference, [logits], scale=10)
    assert torch.autograd.gradcheck(entropy, (logits[:, :9].requires_grad_(),))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :-1],
        lambda x: x[:, 1::2, ::2],
        lambda x: x.transpose(0, 1),
        lambda x: x.transpose(1, 2),
        lambda x: x[:1].expand(4, -1, -1),
        lambda x: x.reshape(2, 2, 5, 70)[:, :, :-1].transpose(0, 2),
    ],
    ids=["shifted", "every second", "rows swapped", "columns first", "expanded", "three strides"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_logits(view, dtype):
    logits = random((4, 5, 70), dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    actual, expected = entropy(view(logits)), reference(view(exact))
    assert_close(actual, expected, scale=3)
    actual.square().sum().backward()
    expected.square().sum().backward()
    assert_close(logits.grad, exact.grad, scale=10)


def test_strided_logits_are_not_copied():
    logits = random((4, 5, 70), torch.bfloat16)
    for view in (logits[:, :-1], logits.transpose(0, 1), logits.transpose(1, 2)):
        assert logit_rows.logit_rows(view).logits is view


def test_forbidden_tokens_and_large_logits():
    logits = random((4, 130), torch.float32)
    logits[0, :100] = float("-inf")
    logits[1, 1:] = float("-inf")
    logits[2] *= 1e4
    logits[3] += 1e4
    check_against_reference(entropy, reference, [logits], scale=100)


def test_impossible_rows_are_nan_and_rows_without_tokens_are_empty():
    assert entropy(torch.full((1, 70), float("-inf"))).isnan().all()
    nothing = torch.empty(0, 70, requires_grad=True)
    out = entropy(nothing)
    out.sum().backward()
    assert out.shape == (0,)
    assert nothing.grad.shape == (0, 70)
