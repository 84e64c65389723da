"""Cut Cross Entropy under the interpreter, against our reference in float64."""

from functools import partial

import pytest
import support.interpreted_library  # noqa: F401  before Cut Cross Entropy
import torch
from support.kernels import assert_close, random

from tunemill.kernels.functions.linear_cross_entropy import reference

# The library compiles a sort and the cap; building C++ for them would take longer than all else here.
torch.compile = partial(torch.compile, backend="eager")

from tunemill.stages.training.kernels.cut_cross_entropy_body import (  # noqa: E402
    cut_linear_cross_entropy,
    linear_cross_entropy,
)

# (tokens, hidden, vocabulary); a block of its kernels is 128 tokens, 32 hidden values, 128 logits.
SHAPES = [(1, 1, 1), (5, 7, 9), (140, 40, 150)]


def given(shape, dtype=torch.float16):
    tokens, hidden, vocabulary = shape
    labels = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(4))
    labels[2::3] = -100
    return (
        random((tokens, hidden), dtype, 0, 1.0),
        random((vocabulary, hidden), dtype, 1, hidden**-0.5),
        labels,
    )


def check(hidden, weight, labels, **settings):
    leaves = [x.detach().requires_grad_() for x in (hidden, weight)]
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    loss = linear_cross_entropy(*leaves, labels, **settings)
    expected = reference(*exact, labels, **settings)
    # Products with the label's row of the weight are rounded to float16 before they are summed.
    assert_close(loss.half(), expected, "loss")
    (3 * loss).backward()
    (3 * expected).backward()
    for leaf, exact_leaf, what in zip(leaves, exact, ("hidden", "weight"), strict=True):
        assert leaf.grad.dtype == leaf.dtype
        largest = exact_leaf.grad.abs().max().clamp(min=1e-30)
        relative = (leaf.grad.double() / largest).half()
        assert_close(relative, exact_leaf.grad / largest, f"gradient of {what}", 2.0)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_match(shape):
    check(*given(shape))


@pytest.mark.parametrize("shape", [(5, 7, 128), (130, 33, 384)])
def test_a_capped_loss(shape):
    check(*given(shape), softcap=3.0)


def test_the_library_still_caps_other_vocabularies_wrong():
    hidden, weight, labels = given((5, 7, 9))
    actual = cut_linear_cross_entropy(hidden, weight, labels, softcap=3.0)
    expected = reference(hidden.double(), weight.double(), labels, softcap=3.0)
    assert actual - expected > 0.1


def test_no_label_ignored():
    hidden, weight, labels = given((5, 7, 9))
    check(hidden, weight, labels.clamp(min=0))


def test_hidden_of_three_dimensions_and_another_ignore_index():
    hidden, weight, labels = given((12, 8, 70))
    hidden, labels = hidden.view(3, 4, 8)[:, :-1], labels.clamp(min=7).view(3, 4)[:, 1:]
    check(hidden, weight, labels, ignore_index=7)


def test_under_autocast():
    hidden, weight, labels = given((5, 7, 9), torch.float32)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = linear_cross_entropy(*leaves, labels)
    loss.backward()
    low = [x.detach().half().requires_grad_() for x in leaves]
    expected = linear_cross_entropy(*low, labels)
    expected.backward()
    assert loss == expected
    for leaf, low_leaf in zip(leaves, low, strict=True):
        assert torch.equal(leaf.grad, low_leaf.grad.float())


@pytest.mark.parametrize("trained", ["hidden", "weight", "neither"])
def test_what_is_frozen_gets_no_gradient(trained):
    hidden, weight, labels = given((5, 7, 9))
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    reference(*exact, labels).backward()
    hidden.requires_grad_(trained == "hidden")
    weight.requires_grad_(trained == "weight")
    loss = linear_cross_entropy(hidden, weight, labels)
    assert loss.requires_grad is (trained != "neither")
    if loss.requires_grad:
        loss.backward()
    for leaf, exact_leaf, name in zip((hidden, weight), exact, ("hidden", "weight"), strict=True):
        if trained == name:
            assert_close(leaf.grad, exact_leaf.grad, f"gradient of {name}")
        else:
            assert leaf.grad is None


def test_everything_ignored_is_zero():
    hidden, weight, labels = given((5, 7, 9))
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    loss = linear_cross_entropy(*leaves, torch.full_like(labels, -100))
    loss.backward()
    assert loss.item() == 0
    assert all(leaf.grad.eq(0).all() for leaf in leaves)
