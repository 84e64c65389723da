"""The cross-entropy in pieces: against the whole logits matrix, its gradients, and what it keeps in memory."""

import pytest
import torch
from support.kernels import assert_close
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tunemill.kernels.functions.chunked_cross_entropy import chunked_cross_entropy, reference

SETTINGS = {
    "plain": {},
    "capped": {"softcap": 3.0},
    "smoothed": {"label_smoothing": 0.125},
    "z-loss": {"z_loss": 0.25},
    "all": {"softcap": 5.0, "label_smoothing": 0.25, "z_loss": 0.125},
}


def given(tokens=11, hidden=6, vocabulary=37, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(vocabulary, (tokens,), generator=generator)
    labels[::4] = -100
    hidden_nh = torch.randn(tokens, hidden, generator=generator, dtype=torch.float64)
    weight_vh = torch.randn(vocabulary, hidden, generator=generator, dtype=torch.float64)
    return hidden_nh.to(dtype), weight_vh.to(dtype), labels


def check(hidden, weight, labels, *, scale=1.0, loss_of=chunked_cross_entropy, **settings):
    leaves = [x.detach().requires_grad_() for x in (hidden, weight)]
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    actual = loss_of(*leaves, labels, **settings)
    expected = reference(*exact, labels, **settings)
    assert actual.dtype == torch.promote_types(hidden.dtype, torch.float32)
    assert_close(actual.to(hidden.dtype), expected, "loss", scale)
    (3 * actual).backward()
    (3 * expected).backward()
    for leaf, exact_leaf, what in zip(leaves, exact, ("hidden", "weight"), strict=True):
        assert leaf.grad.dtype == leaf.dtype
        largest = exact_leaf.grad.abs().max().clamp(min=1e-30)
        relative = (leaf.grad.double() / largest).to(leaf.dtype)
        assert_close(relative, exact_leaf.grad / largest, f"gradient of {what}", scale)


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 8, 11, 40])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_loss_and_gradients_match(settings, num_chunks):
    check(*given(), num_chunks=num_chunks, **settings)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_each_dtype_against_float64(settings, dtype):
    check(*given(dtype=dtype), scale=3.0, **settings)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_gradcheck(settings):
    hidden, weight, labels = given(5, 2, 4)
    assert torch.autograd.gradcheck(
        lambda h, w: chunked_cross_entropy(h, w, labels, num_chunks=3, **settings),
        (hidden.requires_grad_(), weight.requires_grad_()),
    )


def test_hidden_of_three_dimensions_and_another_ignore_index():
    hidden, weight, labels = given(12)
    labels[::4] = 7
    hidden, labels = hidden.view(3, 4, 6)[:, :-1], labels.view(3, 4)[:, 1:]
    check(hidden, weight, labels, num_chunks=4, ignore_index=7)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_everything_ignored_is_zero(settings):
    hidden, weight, labels = given()
    for kept in (11, 0):
        leaves = [x.requires_grad_() for x in (hidden[:kept].detach(), weight.detach())]
        loss = chunked_cross_entropy(*leaves, torch.full_like(labels, -100)[:kept], **settings)
        loss.backward()
        assert loss.item() == 0
        assert all(leaf.grad.eq(0).all() for leaf in leaves)


def test_a_hidden_row_that_is_ignored_may_be_anything():
    hidden, weight, labels = given()
    hidden[0] = torch.inf
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    loss = chunked_cross_entropy(*leaves, labels, num_chunks=2, z_loss=0.5)
    assert loss.isfinite()


@pytest.mark.parametrize("trained", ["hidden", "weight", "neither"])
def test_what_is_frozen_gets_no_gradient(trained):
    hidden, weight, labels = given()
    hidden.requires_grad_(trained == "hidden")
    weight.requires_grad_(trained == "weight")
    loss = chunked_cross_entropy(hidden, weight, labels)
    assert loss.requires_grad is (trained != "neither")
    assert loss.item() == pytest.approx(reference(hidden, weight, labels).item(), rel=1e-14)
    if loss.requires_grad:
        loss.backward()
    assert (hidden.grad is not None, weight.grad is not None) == (trained == "hidden", trained == "weight")


def test_under_autocast():
    hidden, weight, labels = given(dtype=torch.float32)
    low = [x.bfloat16().requires_grad_() for x in (hidden, weight)]
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = chunked_cross_entropy(*leaves, labels, softcap=5.0)
    loss.backward()
    expected = chunked_cross_entropy(*low, labels, softcap=5.0)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss == expected
    for leaf, low_leaf in zip(leaves, low, strict=True):
        assert torch.equal(leaf.grad, low_leaf.grad.float())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [SETTINGS["plain"], SETTINGS["all"]], ids=["plain", "all"])
def test_under_torch_compile(settings):
    torch.compiler.reset()
    compiled = torch.compile(chunked_cross_entropy, fullgraph=True, backend="aot_eager")
    for tokens in (11, 13, 20):
        check(*given(tokens), loss_of=compiled, num_chunks=3, **settings)


class LiveBytes(TorchDispatchMode):
    """The most bytes that the results of the operations held at one time, each storage counted once."""

    def __init__(self):
        super().__init__()
        self.peak = 0
        self.live = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.live = {key: entry for key, entry in self.live.items() if not entry[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return result


def peak_of(function, settings, **more):
    hidden, weight, labels = given(96, 2, 1000, torch.float32)
    with LiveBytes() as live:
        loss = function(hidden.requires_grad_(), weight.requires_grad_(), labels, **settings, **more)
        forward = live.peak
        loss.backward()
    return forward, live.peak


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_logits_of_one_piece_are_alive_at_a_time(settings):
    piece, weight = 96 // 8 * 1000 * 4, 1000 * 2 * 4
    naive_forward, naive = peak_of(reference, settings)
    assert naive_forward >= 8 * piece
    forward, chunked = peak_of(chunked_cross_entropy, settings, num_chunks=8)
    _, halves = peak_of(chunked_cross_entropy, settings, num_chunks=2)
    # Two or three tensors of one piece's logits, six in the backward pass of a capped loss, and weight gradients.
    assert forward <= 3 * piece + 2 * weight
    assert chunked <= 6 * piece + 4 * weight
    assert chunked <= halves / 3
    assert chunked <= naive / 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": torch.ones(11, 7).double()}, r"they are \(\.\.\., H\) and \(V, H\)"),
        ({"hidden": torch.ones(11, 6)}, "give both one floating dtype"),
        ({"labels": torch.zeros(9, dtype=torch.int64)}, "one torch.int64 per row of hidden"),
        ({"labels": torch.zeros(11, dtype=torch.int32)}, "one torch.int64 per row of hidden"),
        ({"softcap": 0.0}, "softcap: 0.0; a positive number"),
        ({"softcap": float("inf")}, "softcap: inf; a positive number"),
        ({"label_smoothing": 1.5}, "label_smoothing: 1.5; a number from 0 to 1"),
        ({"num_chunks": 0}, "num_chunks: 0; a whole number of at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    hidden, weight, labels = given()
    arguments = {"hidden": hidden, "weight": weight, "labels": labels} | change
    for function in (chunked_cross_entropy, reference):
        with pytest.raises(ValueError, match=message):
            function(**arguments)


def test_a_label_outside_the_vocabulary_is_an_error_on_a_cpu():
    hidden, weight, labels = given()
    labels[1] = 37
    with pytest.raises(IndexError, match="out of bounds"):
        chunked_cross_entropy(hidden, weight, labels)
