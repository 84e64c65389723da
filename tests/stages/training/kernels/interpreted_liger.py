"""Liger's functions under the interpreter, against our references in float64 and the models' own modules."""

import pytest
import support.interpreted_library  # noqa: F401  before Liger
import torch
from support.kernels import assert_close, check_against_reference, random
from torch.nn import functional
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from tunemill.kernels.functions import geglu, linear_cross_entropy, rms_norm, rope, swiglu
from tunemill.stages.training.kernels import liger_body as liger

DTYPES = [torch.float32, torch.float16]
SHAPES = [(1, 1), (2, 3, 37), (5, 129)]
SETTINGS = {
    "plain": {},
    "capped": {"softcap": 3.0},
    "smoothed": {"label_smoothing": 0.125},
    "z-loss": {"z_loss": 0.25},
    "all": {"softcap": 5.0, "label_smoothing": 0.25, "z_loss": 0.125},
}


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(shape, dtype, offset):
    inputs = random(shape, dtype), random(shape[-1:], dtype, seed=1)
    check_against_reference(
        lambda x, w: liger.rms_norm(x, w, 1e-5, offset=offset),
        lambda x, w: rms_norm.reference(x, w, 1e-5, offset=offset),
        inputs,
        scale=8,
    )


@pytest.mark.parametrize(("module", "offset"), [(LlamaRMSNorm, 0.0), (GemmaRMSNorm, 1.0)])
def test_rms_norm_rounds_where_the_model_does(module, offset):
    # The root mean square of a row (5, 1, 1) is 3, and neither 5/3 nor 1/3 is a float16.
    x = torch.tensor([[5.0, 1.0, 1.0], [1.0, 5.0, 1.0]]).half().repeat(1, 20)
    norm = module(60, eps=0.0).half()
    weight = random((60,), torch.float16)
    norm.weight.data = weight
    expected = norm(x)
    assert torch.equal(liger.rms_norm(x, weight, 0.0, offset=offset), expected)
    once = rms_norm.reference(x, weight, 0.0, offset=offset)
    assert torch.equal(once, expected) is (module is GemmaRMSNorm)


def test_rms_norm_leaves_the_gradient_beside_it_alone():
    x, residual = (random((3, 7), torch.float32, seed).requires_grad_() for seed in (0, 1))
    weight, grad = random((7,), torch.float32, seed=2), random((3, 7), torch.float32, seed=3)
    (liger.rms_norm(x, weight, 1e-6) + residual).backward(grad)
    assert torch.equal(residual.grad, random((3, 7), torch.float32, seed=3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(shape, dtype):
    # So small that eps decides.
    x = 0.01 * random(shape, dtype)
    inputs = x, random(shape[-1:], dtype, seed=1), random(shape[-1:], dtype, seed=2)
    check_against_reference(
        lambda x, w, b: liger.layer_norm(x, w, b, 1e-5),
        lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b, 1e-5),
        inputs,
        scale=8,
    )


def heads(count, dtype, seed, batch=2, positions=5, size=8):
    """(b, heads, s, d) over a contiguous (b, s, heads, d)."""
    return random((batch, positions, count, size), dtype, seed).transpose(1, 2)


def angles(size, *, batch=1, positions=5):
    position = torch.arange(batch * positions).view(batch, positions, 1)
    turn = (position * 10.0 ** -torch.arange(size // 2)).repeat(1, 1, 2)
    return turn.cos(), turn.sin()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "batch"), [(8, 1), (8, 2), (4, 1)])
def test_rope(size, batch, dtype):
    cos, sin = angles(size, batch=batch)
    inputs = heads(4, dtype, 0), heads(2, dtype, 1)
    for q, k in (inputs, [x.contiguous() for x in inputs]):
        check_against_reference(
            lambda q, k: liger.rope(q, k, cos, sin),
            lambda q, k: rope.reference(q, k, cos, sin),
            (q, k),
            scale=2,
        )


def test_rope_takes_angles_without_a_batch():
    cos, sin = angles(8)
    inputs = heads(4, torch.float32, 0), heads(2, torch.float32, 1)
    expected = rope.reference(*inputs, cos, sin)
    for actual, wanted in zip(liger.rope(*inputs, cos[0], sin[0]), expected, strict=True):
        assert_close(actual, wanted)


def test_rope_without_gradients():
    cos, sin = angles(8)
    inputs = heads(4, torch.float32, 0), heads(2, torch.float32, 1)
    expected = rope.reference(*inputs, cos, sin)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            actual = liger.rope(*[x.clone() for x in inputs], cos, sin)
        for rotated, wanted in zip(actual, expected, strict=True):
            assert_close(rotated, wanted)


@pytest.mark.parametrize("place", [0, 1])
def test_what_rope_wrote_over_is_not_used_by_autograd(place):
    leaf = heads(4, torch.float32, 0).requires_grad_()
    copied = leaf.detach().contiguous()

    def rotated(x):
        given = (x, copied) if place == 0 else (copied, x)
        return liger.rope(*given, *angles(8))[place]

    # The gradient of sigmoid needs its result, which rope writes over.
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        rotated(leaf.sigmoid()).sum().backward()
    rotated(copied.requires_grad_().sigmoid()).sum().backward()
    # That of a product needs both factors, also one that itself needs no gradient.
    constant = leaf.detach()
    scaled = constant * torch.ones(8, requires_grad=True)
    rotated(constant)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scaled.sum().backward()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_swiglu(shape, dtype):
    inputs = random(shape, dtype), random(shape, dtype, seed=1)
    check_against_reference(liger.swiglu, swiglu.reference, inputs, scale=4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_geglu(shape, dtype):
    inputs = random(shape, dtype), random(shape, dtype, seed=1)
    check_against_reference(liger.geglu, geglu.reference, inputs, scale=4, approximate="tanh")
    with pytest.raises(ValueError, match="approximate: none; Liger has gelu in its tanh form only"):
        liger.geglu(*inputs, approximate="none")


def given(tokens, hidden, vocabulary, dtype):
    labels = torch.randint(vocabulary, (tokens,), generator=torch.Generator().manual_seed(4))
    labels[2::3] = -100
    return random((tokens, hidden), dtype, 0, 1.0), random((vocabulary, hidden), dtype, 1, 0.5), labels


def check_loss(function, reference, inputs, scale=3.0):
    """The loss and three times its gradients, relative to the largest."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    loss, expected = function(*[x.clone() for x in leaves]), reference(*exact)
    assert loss.dtype == torch.float32
    assert_close(loss.to(inputs[0].dtype), expected, "loss", scale)
    (3 * loss).backward()
    (3 * expected).backward()
    for number, (leaf, exact_leaf) in enumerate(zip(leaves, exact, strict=True)):
        largest = exact_leaf.grad.abs().max().clamp(min=1e-30)
        relative = (leaf.grad.double() / largest).to(leaf.dtype)
        assert_close(relative, exact_leaf.grad / largest, f"gradient of input {number}", scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 5), (7, 129), (9, 64)])
def test_cross_entropy(shape, dtype):
    logits = random(shape, dtype)
    labels = given(shape[0], 2, shape[1], dtype)[2]
    check_loss(
        lambda z: liger.cross_entropy(z, labels), lambda z: functional.cross_entropy(z, labels), [logits]
    )


def test_cross_entropy_of_a_batch_with_another_ignore_index():
    logits = random((2, 4, 9), torch.float32)
    labels = torch.tensor([[1, 2, 8, 0], [2, 2, 5, 7]])
    check_loss(
        lambda z: liger.cross_entropy(z, labels, ignore_index=2),
        lambda z: functional.cross_entropy(z.flatten(0, 1), labels.flatten(), ignore_index=2),
        [logits],
    )


def test_cross_entropy_writes_over_logits_that_need_a_gradient_only():
    logits, labels = random((4, 9), torch.float32), torch.tensor([1, 2, 3, 4])
    kept, factor = logits.clone(), torch.ones(9, requires_grad=True)
    scaled = logits * factor
    liger.cross_entropy(logits, labels)
    scaled.sum().backward()
    assert torch.equal(logits, kept)
    assert torch.equal(factor.grad, kept.sum(dim=0))
    # The gradient of exp needs its result.
    loss = liger.cross_entropy(logits.requires_grad_().exp(), labels)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_linear_cross_entropy(settings, dtype):
    # 150 logits of 6 hidden values go through Liger in chunks, here of one token.
    hidden, weight, labels = given(9, 6, 150, dtype)
    check_loss(
        lambda h, w: liger.linear_cross_entropy(h, w, labels, **settings),
        lambda h, w: linear_cross_entropy.reference(h, w, labels, **settings),
        [hidden, weight],
        scale=8,
    )


def test_linear_cross_entropy_of_a_batch_with_another_ignore_index():
    hidden, weight, labels = given(12, 6, 50, torch.float32)
    hidden, labels = hidden.view(3, 4, 6)[:, :-1], labels.clamp(min=7).view(3, 4)[:, 1:]
    check_loss(
        lambda h, w: liger.linear_cross_entropy(h, w, labels, ignore_index=7),
        lambda h, w: linear_cross_entropy.reference(h, w, labels, ignore_index=7),
        [hidden, weight],
    )


@pytest.mark.parametrize("trained", ["hidden", "weight", "neither"])
def test_linear_cross_entropy_trains_what_needs_a_gradient(trained):
    hidden, weight, labels = given(9, 6, 50, torch.float32)
    exact = [x.double().requires_grad_() for x in (hidden, weight)]
    linear_cross_entropy.reference(*exact, labels).backward()
    hidden.requires_grad_(trained == "hidden")
    weight.requires_grad_(trained == "weight")
    loss = liger.linear_cross_entropy(hidden, weight, labels)
    assert loss.requires_grad is (trained != "neither")
    if loss.requires_grad:
        loss.backward()
    for leaf, exact_leaf, name in zip((hidden, weight), exact, ("hidden", "weight"), strict=True):
        if trained == name:
            assert_close(leaf.grad, exact_leaf.grad, f"gradient of {name}")
        else:
            assert leaf.grad is None


def test_everything_ignored_is_zero():
    hidden, weight, labels = given(9, 6, 50, torch.float32)
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    labels = torch.full_like(labels, -100)
    for loss in (
        liger.linear_cross_entropy(*leaves, labels),
        liger.cross_entropy(leaves[0] @ leaves[1].T, labels),
    ):
        loss.backward()
        assert loss.item() == 0
        assert all(leaf.grad.eq(0).all() for leaf in leaves)
