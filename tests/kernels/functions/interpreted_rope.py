"""RoPE's Triton kernel under the interpreter, against the reference in float64."""

import pytest
import torch
from support.kernels import assert_close, check_against_reference, identity, random

from tunemill.kernels.functions.rope import reference, rope

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# b, h, g, s, d
SHAPES = [(1, 1, 1, 1, 2), (2, 3, 1, 5, 6), (2, 4, 2, 3, 16), (1, 5, 5, 2, 34)]


def tables(batch, positions, size, dtype=torch.float32):
    angles = random((batch, positions, size), torch.float64, seed=7)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def queries_and_keys(shape, dtype):
    """In the order a model has them: (b, s, h, d) in memory, heads and positions swapped."""
    b, h, g, s, d = shape
    return [random((b, s, n, d), dtype, seed=n).transpose(1, 2) for n in (h, g)]


def with_tables(function, cos, sin, **options):
    def call(q, k):
        kind = torch.float64 if q.dtype == torch.float64 else cos.dtype
        return function(q, k, cos.to(kind), sin.to(kind), **options)

    return call


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_match(shape, dtype, in_place):
    cos, sin = tables(shape[0], shape[3], shape[4], dtype)
    check_against_reference(
        with_tables(rope, cos, sin, in_place=in_place),
        with_tables(reference, cos, sin),
        queries_and_keys(shape, dtype),
        scale=2,
    )


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("size", [2, 6, 10])
def test_only_part_of_a_head_is_rotated(size, in_place):
    cos, sin = tables(2, 3, size)
    check_against_reference(
        with_tables(rope, cos, sin, in_place=in_place),
        with_tables(reference, cos, sin),
        queries_and_keys((2, 3, 2, 3, 12), torch.float32),
        scale=2,
    )


def test_one_table_for_all_rows_and_without_rows():
    cos, sin = tables(1, 5, 6)
    q, k = queries_and_keys((2, 3, 1, 5, 6), torch.float32)
    for tables_given in ((cos, sin), (cos[0], sin[0])):
        for actual, expected in zip(rope(q, k, *tables_given), reference(q, k, cos, sin), strict=True):
            assert_close(actual, expected.double(), scale=2)


def test_gradcheck():
    cos, sin = tables(1, 2, 4, torch.float64)
    q, k = (x.requires_grad_() for x in queries_and_keys((1, 2, 1, 2, 5), torch.float64))
    assert torch.autograd.gradcheck(lambda q, k: rope(q, k, cos, sin), (q, k))


def test_many_heads_take_several_blocks(monkeypatch):
    monkeypatch.setattr("tunemill.kernels.functions.rope.TILE", 8)
    cos, sin = tables(1, 2, 8)
    inputs = queries_and_keys((1, 7, 3, 2, 8), torch.float32)
    check_against_reference(with_tables(rope, cos, sin), with_tables(reference, cos, sin), inputs, scale=2)


def test_results_and_gradients_keep_the_memory_order():
    cos, sin = tables(2, 5, 6)
    q, k = (x.requires_grad_() for x in queries_and_keys((2, 3, 1, 5, 6), torch.float32))
    q_out, k_out = rope(q, k, cos, sin)
    assert q_out.stride() == q.stride()
    q_grad, _ = torch.autograd.grad(q_out.contiguous().square().sum() + k_out.sum(), (q, k))
    assert q_grad.stride() == q.stride()


def test_other_layouts():
    cos, sin = tables(2, 5, 6)
    fused = random((2, 5, 4 * 6), torch.float32).requires_grad_()
    exact = fused.detach().double().requires_grad_()

    def run(function, x, cos, sin, **options):
        q = x[..., :18].view(2, 5, 3, 6).transpose(1, 2)
        k = x[..., 18:].view(2, 5, 1, 6).transpose(1, 2)
        return sum(y.pow(2).mul(torch.arange(6)).sum() for y in function(q, k, cos, sin, **options))

    run(rope, identity(fused), cos, sin, in_place=True).backward()
    run(reference, exact, cos.double(), sin.double()).backward()
    assert_close(fused.grad, exact.grad, scale=10)
    every_second = random((2, 3, 5, 12), torch.float32)[..., ::2]
    expected = reference(every_second, every_second, cos, sin)
    for actual, wanted in zip(
        rope(every_second, every_second, cos, sin, in_place=True), expected, strict=True
    ):
        assert_close(actual, wanted.double(), scale=2)


def test_in_place_writes_over_what_is_given():
    cos, sin = tables(2, 5, 6)
    q, k = queries_and_keys((2, 3, 1, 5, 6), torch.float32)
    expected = reference(q, k, cos, sin)
    q_out, k_out = rope(q, k, cos, sin, in_place=True)
    assert q_out.data_ptr() == q.data_ptr()
    assert k_out.data_ptr() == k.data_ptr()
    assert_close(q, expected[0].double(), scale=2)
    assert_close(k, expected[1].double(), scale=2)


def test_in_place_spares_leaves_views_of_leaves_and_saved_results():
    cos, sin = tables(2, 5, 6)
    q, k = (x.requires_grad_() for x in queries_and_keys((2, 3, 1, 5, 6), torch.float32))
    before = q.detach().clone(), k.detach().clone()
    rope(q, k.view(k.shape), cos, sin, in_place=True)
    assert torch.equal(q, before[0])
    assert torch.equal(k, before[1])
    saved = q.sigmoid()
    rope(saved, identity(k), cos, sin, in_place=True)[0].sum().backward()
    assert q.grad is not None


def test_a_stale_read_raises_after_rotating_in_place():
    cos, sin = tables(2, 5, 6)
    q, k = (x.requires_grad_() for x in queries_and_keys((2, 3, 1, 5, 6), torch.float32))
    made = identity(q)
    squared = (made * made).sum()
    rope(made, identity(k), cos, sin, in_place=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.backward()


def test_without_in_place_the_inputs_are_kept():
    cos, sin = tables(2, 5, 6)
    q, k = queries_and_keys((2, 3, 1, 5, 6), torch.float32)
    before = q.clone()
    rope(q, k, cos, sin)
    assert torch.equal(q, before)


def test_no_positions():
    cos, sin = tables(2, 0, 6)
    q, k = (x.requires_grad_() for x in queries_and_keys((2, 3, 1, 0, 6), torch.float32))
    q_out, _ = rope(q, k, cos, sin)
    q_out.sum().backward()
    assert q.grad.shape == q.shape
