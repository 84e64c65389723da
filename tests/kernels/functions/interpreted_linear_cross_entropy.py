"""The linear cross-entropy's Triton kernels under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, random
from torch.utils._python_dispatch import TorchDispatchMode

from tunemill.kernels.functions import linear_cross_entropy as module
from tunemill.kernels.functions.linear_cross_entropy import linear_cross_entropy, reference

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# (tokens, hidden, vocabulary)
SHAPES = [(1, 1, 1), (1, 3, 5), (5, 7, 129), (12, 8, 64), (11, 6, 200)]
SETTINGS = {
    "plain": {},
    "capped": {"softcap": 3.0},
    "smoothed": {"label_smoothing": 0.125},
    "z-loss": {"z_loss": 0.25},
    "all": {"softcap": 5.0, "label_smoothing": 0.25, "z_loss": 0.125},
}


@pytest.fixture(autouse=True)
def several_chunks_and_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(module, "ROW_MULTIPLE", 8)
    monkeypatch.setattr(module, "_tokens_per_chunk", lambda tokens, _: min(tokens, 4))


def given(shape, dtype):
    tokens, hidden, vocabulary = shape
    labels = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(4))
    labels[2::3] = -100
    return random((tokens, hidden), dtype, 0, 1.0), random((vocabulary, hidden), dtype, 1, 0.5), labels


def check(hidden, weight, labels, scale=3.0, grad_loss=1.0, view=lambda x: x, **settings):
    leaves = [x.detach().requires_grad_() for x in (hidden, weight)]
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    actual = linear_cross_entropy(view(leaves[0]), leaves[1], labels, **settings)
    expected = reference(view(exact[0]), exact[1], labels, **settings)
    # The loss is float32, but of logits that are rounded to the type of hidden.
    assert_close(actual.to(hidden.dtype), expected, "loss", scale)
    (actual * grad_loss).backward()
    (expected * grad_loss).backward()
    for leaf, exact_leaf, what in zip(leaves, exact, ("hidden", "weight"), strict=True):
        assert leaf.grad.dtype == leaf.dtype
        # Relative to the largest gradient: small ones are differences of large terms.
        largest = exact_leaf.grad.abs().max().clamp(min=1e-30)
        relative = (leaf.grad.double() / largest).to(leaf.dtype)
        assert_close(relative, exact_leaf.grad / largest, f"gradient of {what}", scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_loss_and_gradients_match(shape, dtype):
    check(*given(shape, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings(settings, dtype):
    check(*given((9, 6, 150), dtype), **settings)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_token_weights(settings, dtype):
    hidden, weight, labels = given((9, 6, 150), dtype)
    weights = torch.linspace(0, 2, 9)
    check(hidden, weight, labels, token_weights=weights, **settings)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_float64_and_gradcheck(settings, monkeypatch):
    check(*given((6, 3, 70), torch.float64), scale=100, **settings)
    monkeypatch.setattr(module, "BLOCK", 4)
    hidden, weight, labels = given((5, 2, 5), torch.float64)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, labels, **settings), leaves)


def test_float16_with_a_loss_scale_neither_overflows_nor_vanishes():
    hidden, weight, labels = given((24, 6, 150), torch.float16)
    labels[4:] = -100
    labels[:4] = torch.arange(4)
    check(hidden, weight, labels, grad_loss=1024.0)
    check(hidden, weight, labels, grad_loss=1 / 1024)


@pytest.mark.parametrize("trained", ["hidden", "weight", "neither"])
def test_only_wanted_gradients_are_computed(trained):
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    expected = linear_cross_entropy(hidden.requires_grad_(), weight.requires_grad_(), labels)
    expected.backward()
    first, second = hidden.detach(), weight.detach()
    first.requires_grad_(trained == "hidden")
    second.requires_grad_(trained == "weight")
    loss = linear_cross_entropy(first, second, labels)
    assert loss.requires_grad is (trained != "neither")
    assert loss == expected
    if trained == "hidden":
        loss.backward()
        assert torch.equal(first.grad, hidden.grad)
        assert second.grad is None
    if trained == "weight":
        loss.backward()
        assert torch.equal(second.grad, weight.grad)
        assert first.grad is None


def test_no_gradient_mode_computes_no_gradient(monkeypatch):
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    wanted = []
    launch = module._launch
    monkeypatch.setattr(module, "_launch", lambda *a: (wanted.append(a[-1]), launch(*a)))
    with torch.no_grad():
        linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    assert wanted == [False] * 3


def test_hidden_of_three_dimensions_and_strides():
    hidden, weight, labels = given((12, 8, 70), torch.float32)
    check(hidden.view(3, 4, 8), weight, labels.view(3, 4)[:, 1:], view=lambda x: x[:, :-1])
    check(hidden.view(3, 4, 8), weight, labels.view(4, 3), view=lambda x: x.transpose(0, 1))
    spread = weight.repeat_interleave(2, dim=1)[:, ::2]
    assert linear_cross_entropy(hidden, spread, labels) == linear_cross_entropy(hidden, weight, labels)


def test_everything_ignored_is_zero():
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    hidden.requires_grad_()
    loss = linear_cross_entropy(hidden, weight, torch.full_like(labels, -100))
    loss.backward()
    assert loss == 0
    assert hidden.grad.eq(0).all()
    nothing = hidden.detach()[:0].requires_grad_()
    loss = linear_cross_entropy(nothing, weight.requires_grad_(), labels[:0])
    loss.backward()
    assert loss == 0
    assert weight.grad.eq(0).all()


def test_another_ignore_index():
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    labels = torch.where(labels == -100, 3, labels)
    labels[0] = 4
    check(hidden, weight, labels, ignore_index=3)


@pytest.mark.parametrize("label", [-1, 150])
def test_a_label_outside_the_vocabulary_is_nan(label):
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    labels[0] = label
    loss = linear_cross_entropy(hidden.requires_grad_(), weight, labels)
    loss.backward()
    assert loss.isnan()
    assert hidden.grad[0].isnan().all()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_lies_between_the_rows_is_not_read(settings):
    torch.use_deterministic_algorithms(mode=True)  # fills new memory with NaN
    try:
        check(*given((9, 6, 150), torch.float32), **settings)
    finally:
        torch.use_deterministic_algorithms(mode=False)


def test_large_logits():
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    check(hidden * 100, weight * 100, labels, scale=10)
    check(hidden * 100, weight * 100, labels, scale=10, softcap=30.0)


def test_a_kept_graph_gives_the_same_gradients_again():
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    loss = linear_cross_entropy(*leaves, labels)
    first = torch.autograd.grad(loss, leaves, retain_graph=True)
    second = torch.autograd.grad(loss * 2, leaves)
    for one, two in zip(first, second, strict=True):
        assert_close(two, 2 * one)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_under_autocast():
    hidden, weight, labels = given((9, 6, 150), torch.float32)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = linear_cross_entropy(*leaves, labels)
        loss.backward()
    low = [x.detach().bfloat16().requires_grad_() for x in leaves]
    expected = linear_cross_entropy(*low, labels)
    expected.backward()
    assert loss == expected
    for leaf, low_leaf in zip(leaves, low, strict=True):
        assert torch.equal(leaf.grad, low_leaf.grad.float())


class LargestTensor(TorchDispatchMode):
    """The most bytes of any tensor that an operation gives back."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


def test_the_logits_never_exist_at_once():
    hidden, weight, labels = given((40, 6, 150), torch.float32)
    hidden.requires_grad_()
    with LargestTensor() as largest:
        linear_cross_entropy(hidden, weight, labels).backward()
    assert largest.bytes == weight.nbytes > 4 * 150 * 4
    with LargestTensor() as naive:
        reference(hidden, weight, labels).backward()
    assert naive.bytes == 40 * 150 * 4
