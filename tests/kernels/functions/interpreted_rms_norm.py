"""RMSNorm's Triton kernels under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, check_against_reference, identity, random

from tunemill.kernels.functions import rms_norm as module
from tunemill.kernels.functions.rms_norm import reference, rms_norm

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (3, 5), (2, 9, 37), (5, 129), (17, 128), (3, 2050)]
EPS = 1e-5


def plain(function):
    def call(x, weight, offset=0.0):
        return function(x, weight, EPS, offset=offset)

    return call


def added(function):
    def call(x, weight, residual, offset=0.0):
        return function(x, weight, EPS, residual=residual, offset=offset)

    return call


def inputs(shape, dtype, names="xwr"):
    weight = 1 + random(shape[-1:], torch.float32, seed=1, spread=0.3)
    made = {"x": random(shape, dtype), "w": weight.to(dtype), "r": random(shape, dtype, seed=2)}
    return [made[name] for name in names]


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_match(shape, dtype, offset):
    check_against_reference(
        plain(rms_norm), plain(reference), inputs(shape, dtype, "xw"), scale=8, offset=offset
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 9, 37), (5, 129)])
def test_with_a_residual(shape, dtype):
    # Sums that need no rounding: the reference in float64 then normalises the same h.
    x, weight, residual = inputs(shape, dtype)
    x, residual = ((t.float() * 4).round().to(dtype) / 4 for t in (x, residual))
    check_against_reference(added(rms_norm), added(reference), [x, weight, residual], scale=8)


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_gradcheck(offset):
    x, weight, residual = (t.requires_grad_() for t in inputs((3, 5), torch.float64))
    assert torch.autograd.gradcheck(lambda x, w: rms_norm(x, w, EPS, offset=offset), (x, weight))
    assert torch.autograd.gradcheck(
        lambda x, w, r: rms_norm(x, w, EPS, residual=r, offset=offset), (x, weight, residual)
    )


def test_the_new_residual_is_rounded_before_it_is_normalised():
    x, weight, residual = inputs((4, 37), torch.bfloat16)
    y, h = rms_norm(x, weight, EPS, residual=residual)
    assert_close(h, x.double() + residual.double())  # the interpreter truncates where a GPU rounds
    assert_close(y, reference(h.double(), weight.double(), EPS))


def test_only_one_of_two_outputs_is_used():
    for used in (0, 1):
        leaves = [t.requires_grad_() for t in inputs((3, 37), torch.float32)]
        exact = [t.detach().double().requires_grad_() for t in leaves]
        added(rms_norm)(*leaves)[used].square().sum().backward()
        added(reference)(*exact)[used].square().sum().backward()
        for leaf, expected in zip(leaves, exact, strict=True):
            grad = torch.zeros_like(expected) if expected.grad is None else expected.grad
            assert_close(leaf.grad, grad, f"output {used}", scale=20)


def test_a_frozen_weight_gets_no_gradient():
    x, weight = inputs((9, 37), torch.float32, "xw")
    x.requires_grad_()
    rms_norm(x, weight, EPS).square().sum().backward()
    exact = x.detach().double().requires_grad_()
    reference(exact, weight.double(), EPS).square().sum().backward()
    assert weight.grad is None
    assert_close(x.grad, exact.grad, scale=20)


def test_weight_of_another_type():
    x, weight = inputs((9, 37), torch.bfloat16, "xw")
    weight = weight.float().requires_grad_()
    y = rms_norm(x, weight, EPS)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert weight.grad.dtype == torch.float32


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_other_layouts(layout):
    def arrange(x):
        return {"transposed": x.transpose(0, 1), "strided": x[:, ::2], "expanded": x[:, :1].expand(-1, 6)}[
            layout
        ]

    leaf = random((6, 6), torch.float32).requires_grad_()
    exact = leaf.detach().double().requires_grad_()
    weight = torch.linspace(0.5, 1.5, 3 if layout == "strided" else 6)
    rms_norm(arrange(identity(leaf)), weight, EPS).pow(3).sum().backward()
    reference(arrange(exact), weight.double(), EPS).pow(3).sum().backward()
    assert_close(leaf.grad, exact.grad, layout, scale=50)


def test_rows_of_zeros():
    x = torch.zeros(2, 5, requires_grad=True)
    y = rms_norm(x, torch.ones(5), EPS)
    y.sum().backward()
    assert torch.equal(y, torch.zeros(2, 5))
    assert x.grad.isfinite().all()


def test_no_rows():
    x, weight = torch.empty(0, 5, requires_grad=True), torch.ones(5, requires_grad=True)
    rms_norm(x, weight, EPS).sum().backward()
    assert x.grad.shape == (0, 5)
    assert torch.equal(weight.grad, torch.zeros(5))


def test_rows_too_long_for_one_program_use_the_reference(monkeypatch):
    monkeypatch.setattr(module, "LARGEST_ROW", 4)
    x, weight = inputs((2, 5), torch.float32, "xw")
    assert torch.equal(rms_norm(x, weight, EPS), reference(x, weight, EPS))
