"""RoPE on a CPU: the reference, hand-derived values, and the kernel under the interpreter."""

import math

import pytest
import torch
from support.interpreter import run_interpreted
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from tunemill.kernels.functions.rope import reference, rope


@pytest.mark.slow
def test_under_the_interpreter():
    run_interpreted("rope", at_least=37)


def test_hand_derived_values():
    # A quarter turn of (x1, x2) = (3, 4) is (-4, 3); the third element lies behind the rotated part.
    x = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64).reshape(1, 1, 1, 3).requires_grad_()
    cos, sin = torch.zeros(1, 1, 2, dtype=torch.float64), torch.ones(1, 1, 2, dtype=torch.float64)
    q, k = rope(x, x, cos, sin)
    assert q.flatten().tolist() == k.flatten().tolist() == [-4.0, 3.0, 5.0]
    # The gradient turns back: of y1 with respect to (x1, x2) it is (0, -1).
    q[..., 0].sum().backward()
    assert x.grad.flatten().tolist() == [0.0, -1.0, 0.0]


def test_llama_agrees():
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    angles = torch.outer(torch.arange(5.0), 10000 ** (-torch.arange(0, 8, 2) / 8)).repeat(1, 2)[None]
    expected = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    for actual, wanted in zip(rope(q, k, angles.cos(), angles.sin()), expected, strict=True):
        torch.testing.assert_close(actual, wanted)


def test_a_rotation_keeps_the_length():
    angle = torch.full((3, 4), math.pi / 7)
    q = torch.randn(1, 2, 3, 4)
    out, _ = reference(q, q, angle.cos(), angle.sin())
    torch.testing.assert_close(out.norm(dim=-1), q.norm(dim=-1))


def test_shapes_must_agree():
    q, table = torch.ones(1, 2, 3, 4), torch.ones(1, 3, 4)
    with pytest.raises(ValueError, match="disagree"):
        rope(q, torch.ones(1, 2, 5, 4), table, table)
    with pytest.raises(ValueError, match=r"cos and sin must be \(b or 1, s, r\)"):
        rope(q, q, torch.ones(1, 4, 4), table)
    with pytest.raises(ValueError, match="must be even and at most 4, got 6"):
        rope(q, q, torch.ones(1, 3, 6), torch.ones(1, 3, 6))
    with pytest.raises(ValueError, match="get no gradient"):
        rope(q, q, table.clone().requires_grad_(), table)
