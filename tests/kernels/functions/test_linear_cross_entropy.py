"""The linear cross-entropy on a CPU: the reference, hand-derived values, chunks, and the kernels interpreted."""

import math

import pytest
import torch
from support.interpreter import run_interpreted
from torch.nn import functional

from tunemill.kernels.functions.linear_cross_entropy import _tokens_per_chunk, linear_cross_entropy, reference


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("linear_cross_entropy", at_least=69)


def given(tokens=10, hidden=6, vocabulary=15):
    torch.manual_seed(0)
    labels = torch.randint(vocabulary, (tokens,))
    labels[::4] = -100
    return torch.randn(tokens, hidden).double(), torch.randn(vocabulary, hidden).double(), labels


def test_hand_derived_values():
    # Logits (ln 2, 0, 0) and label 0: lse = ln 4, cross-entropy ln 2, mean logit ln 2 / 3.
    hidden = torch.tensor([[1.0]], dtype=torch.float64)
    weight = torch.tensor([[math.log(2)], [0.0], [0.0]], dtype=torch.float64)
    label = torch.tensor([0])
    ln2 = math.log(2)
    assert linear_cross_entropy(hidden, weight, label).item() == pytest.approx(ln2)
    smoothed = linear_cross_entropy(hidden, weight, label, label_smoothing=0.3).item()
    assert smoothed == pytest.approx(0.7 * ln2 + 0.3 * (2 * ln2 - ln2 / 3))
    with_z = linear_cross_entropy(hidden, weight, label, z_loss=0.5).item()
    assert with_z == pytest.approx(ln2 + 0.5 * (2 * ln2) ** 2)
    capped = linear_cross_entropy(hidden, weight, label, softcap=0.5).item()
    logit = 0.5 * math.tanh(ln2 / 0.5)
    assert capped == pytest.approx(math.log(math.exp(logit) + 2) - logit)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_reference_is_torch_s_cross_entropy(label_smoothing):
    hidden, weight, labels = given()
    expected = functional.cross_entropy(hidden @ weight.T, labels, label_smoothing=label_smoothing)
    assert reference(hidden, weight, labels, label_smoothing=label_smoothing).item() == pytest.approx(
        expected.item(), rel=1e-14
    )


def test_token_weights_are_repetitions():
    hidden, weight, labels = given(5)
    times = torch.tensor([1, 0, 3, 2, 1])
    repeated = [x.repeat_interleave(times, dim=0) for x in (hidden, labels)]
    assert linear_cross_entropy(hidden, weight, labels, token_weights=times).item() == pytest.approx(
        linear_cross_entropy(repeated[0], weight, repeated[1]).item(), rel=1e-14
    )


def test_everything_ignored_is_zero():
    hidden, weight, labels = given()
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, -100))
    loss.backward()
    assert loss.item() == 0
    assert hidden.grad.eq(0).all()


def test_a_label_outside_the_vocabulary_is_an_error_on_a_cpu():
    hidden, weight, labels = given()
    labels[1] = 15
    with pytest.raises(RuntimeError, match="out of bounds"):
        linear_cross_entropy(hidden, weight, labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(10, 7).double()}, r"they are \(\.\.\., H\) and \(V, H\)"),
        ({"hidden": torch.ones(10, 6)}, "give both one floating dtype"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "one torch.int64 per row of hidden"),
        ({"labels": torch.zeros(10, dtype=torch.int32)}, "one torch.int64 per row of hidden"),
        ({"softcap": 0.0}, "softcap: 0.0; a positive number"),
        ({"label_smoothing": 1.5}, "label_smoothing: 1.5; a number from 0 to 1"),
        ({"token_weights": torch.ones(3)}, "one weight per label"),
        ({"token_weights": torch.ones(10, requires_grad=True)}, "detach it"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    hidden, weight, labels = given()
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{"hidden": hidden, "weight": weight, "labels": labels} | change)


@pytest.mark.parametrize("vocabulary", [151_936, 128_256, 32_000])
@pytest.mark.parametrize("tokens", [1, 500, 4096, 8192, 16_384, 65_536, 65_537])
def test_chunks_are_few_and_small(tokens, vocabulary):
    size = _tokens_per_chunk(tokens, vocabulary)
    assert size == tokens or size % 128 == 0
    assert size * vocabulary <= 2**29 + 128 * vocabulary
    chunks = -(-tokens // size)
    assert chunks <= max(10, -(-tokens * vocabulary // 2**28))
    if tokens * vocabulary >= 2**29:
        # The naive loss holds 14 bytes per logit, a chunk 2.
        assert 2 * size <= 14 * tokens / 10
