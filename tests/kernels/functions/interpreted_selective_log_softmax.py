"""The selective log-softmax's Triton kernels under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, random

from tunemill.kernels.functions import logit_rows
from tunemill.kernels.functions.selective_log_softmax import reference, selective_log_softmax

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1,), (1, 1), (3, 5), (7, 129), (2, 3, 200)]


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(logit_rows, "BLOCK", 64)


def choose(logits, chosen=None):
    shape = logits.shape[:-1] if chosen is None else (*logits.shape[:-1], chosen)
    return torch.randint(logits.shape[-1], shape, generator=torch.Generator().manual_seed(3))


def check(logits, index, view=lambda x: x, scale=3.0):
    leaf = logits.detach().requires_grad_()
    exact_leaf = logits.detach().double().requires_grad_()
    actual = selective_log_softmax(view(leaf), index)
    expected = reference(view(exact_leaf), index)
    assert_close(actual, expected, "log probabilities", scale)
    grad = random(actual.shape, actual.dtype, seed=5)
    actual.backward(grad)
    expected.backward(grad.double())
    assert leaf.grad.dtype == leaf.dtype
    assert_close(leaf.grad, exact_leaf.grad, "gradient", scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradient_match(shape, dtype):
    logits = random(shape, dtype, spread=3.0)
    check(logits, choose(logits))
    assert selective_log_softmax(logits, choose(logits)).dtype == torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("chosen", [1, 3])
def test_several_tokens_of_a_row(chosen, dtype):
    logits = random((2, 3, 129), dtype)
    index = choose(logits, chosen)
    index[0, 0] = 7  # the same token more than once
    check(logits, index)


def test_float64_and_gradcheck():
    logits = random((3, 70), torch.float64)
    check(logits, choose(logits), scale=10)
    few = logits[:, :9].contiguous().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: selective_log_softmax(x, choose(few, 2)), (few,))


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
    logits = random((4, 5, 70), dtype)
    check(logits, choose(view(logits)), view)


def test_a_strided_index():
    logits = random((3, 4, 70), torch.float32)
    check(logits, choose(logits.transpose(0, 1)).transpose(0, 1))


def test_rows_without_a_gradient_get_zeros():
    logits = random((3, 70), torch.float32).requires_grad_()
    mask = torch.tensor([1.0, 0.0, 1.0])
    (selective_log_softmax(logits, choose(logits)) * mask).sum().backward()
    assert logits.grad[1].eq(0).all()
    assert logits.grad[[0, 2]].ne(0).all()


def test_gradients_that_cancel_still_arrive():
    logits = random((1, 70), torch.float32).requires_grad_()
    grad = torch.tensor([[1.0, -1.0]])
    selective_log_softmax(logits, torch.tensor([[2, 3]])).backward(grad)
    assert logits.grad[0, 2:4].tolist() == [1.0, -1.0]


def test_forbidden_tokens_and_large_logits():
    logits = random((3, 130), torch.float32)
    logits[0, :100] = float("-inf")
    logits[1] *= 1e4
    logits[2] += 1e4
    check(logits, torch.tensor([110, 1, 2]), scale=10)
    assert selective_log_softmax(logits, torch.tensor([5, 1, 2]))[0] == float("-inf")


def test_an_index_outside_the_vocabulary_is_nan():
    found = selective_log_softmax(torch.ones(3, 70), torch.tensor([-100, 70, 1]))
    assert found.isnan().tolist() == [True, True, False]


def test_no_rows():
    nothing = torch.empty(0, 70, requires_grad=True)
    out = selective_log_softmax(nothing, torch.empty(0, dtype=torch.int64))
    out.sum().backward()
    assert out.shape == (0,)
    assert nothing.grad.shape == (0, 70)
