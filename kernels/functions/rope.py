"""Rotary position embedding of q and k, in the half-rotation form of Llama.

With x = (x1, x2) the two halves of the rotated part of a head, and cos, sin split likewise:
y1 = x1 cos1 - x2 sin1; y2 = x2 cos2 + x1 sin2. What lies behind the rotated part is passed through.

Shapes: q: (b, h, s, d), k: (b, g, s, d), cos and sin: (b or 1, s, r) or (s, r) with r <= d even; b batch, h
and g heads, s positions, d head size, r rotated part. Dtypes: float32, bfloat16, float16 (computed in
float32, rounded once), float64; cos and sin of any of them. Results keep the type and the memory order of q
and k, so that the transpose back to (b, s, h, d) stays free.

Gradients: dx1 = dy1 cos1 + dy2 sin2; dx2 = dy2 cos2 - dy1 sin1; nothing is saved but cos and sin. cos and sin
get no gradient, and asking for one is an error.

Source: Su et al., RoFormer, https://arxiv.org/abs/2104.09864 (section 3.4.2), with dimension i paired with
i + r / 2 in place of i + 1.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from tunemill.kernels.functions.triton_runtime import (
    accumulation_type,
    check_one_device,
    device_of,
    jit,
    next_power_of_2,
    runs_on,
    tl,
)

# Elements of each half that one program holds at a time: 16 to a thread of 4 warps.
TILE = 2048


def reference(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    in_place: bool = False,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    """q and k rotated, in plain PyTorch, never in place."""
    check_inputs(q, k, cos, sin)
    return rotate_reference(q, cos, sin), rotate_reference(k, cos, sin)


def rotate_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """One tensor rotated, computed in at least float32."""
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    size = cos.shape[-1]
    rotated, rest = x[..., :size].to(compute), x[..., size:]
    first, second = rotated.chunk(2, dim=-1)
    cos, sin = cos.to(compute).unsqueeze(-3), sin.to(compute).unsqueeze(-3)
    rotated = rotated * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((rotated.to(x.dtype), rest), dim=-1)


def rope(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *, in_place: bool = False) -> tuple[Tensor, Tensor]:
    """q and k rotated; raises ValueError when the shapes do not fit.

    `in_place=True` says that the caller reads the given q and k no more: they are then written over where
    that is safe (`may_write_over`). A later use of them by autograd raises.
    """
    if not runs_on(q):
        return reference(q, k, cos, sin, in_place=in_place)
    check_inputs(q, k, cos, sin)
    rotated: tuple[Tensor, Tensor] = RoPE.apply(q, k, cos, sin, in_place)
    return rotated


def check_inputs(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ValueError unless the shapes fit together."""
    if q.dim() != 4 or k.dim() != 4 or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        raise ValueError(f"q (b, h, s, d) and k (b, g, s, d) disagree: {tuple(q.shape)}, {tuple(k.shape)}")
    size = cos.shape[-1]
    fits = cos.shape == sin.shape and cos.dim() in (2, 3) and cos.shape[-2] == q.shape[2]
    if not fits or (cos.dim() == 3 and cos.shape[0] not in (1, q.shape[0])):
        raise ValueError(
            f"cos and sin must be (b or 1, s, r) for q {tuple(q.shape)}, "
            f"got {tuple(cos.shape)} and {tuple(sin.shape)}"
        )
    if size > q.shape[-1] or size % 2:
        raise ValueError(f"the rotated size must be even and at most {q.shape[-1]}, got {size}")
    if cos.requires_grad or sin.requires_grad:
        raise ValueError("cos and sin get no gradient here; pass them detached")
    check_one_device(q=q, k=k, cos=cos, sin=sin)


@jit
def rotate_heads(
    x_ptr: tl.tensor,
    y_ptr: tl.tensor,
    x_head_stride: tl.tensor,
    y_head_stride: tl.tensor,
    cos_first: tl.tensor,
    cos_second: tl.tensor,
    sin_first: tl.tensor,
    sin_second: tl.tensor,
    HEAD_SIZE: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    HEADS: tl.constexpr,  # noqa: N803
    HEAD_BLOCK: tl.constexpr,  # noqa: N803
    HALF_BLOCK: tl.constexpr,  # noqa: N803
    REST_BLOCK: tl.constexpr,  # noqa: N803
    COMPUTE: tl.constexpr,  # noqa: N803
    BACKWARD: tl.constexpr,  # noqa: N803
) -> None:
    """All heads of one token."""
    column = tl.arange(0, HALF_BLOCK)
    for first_head in range(0, HEADS, HEAD_BLOCK):
        head = (first_head + tl.arange(0, HEAD_BLOCK)).to(tl.int64)
        inside = (head < HEADS)[:, None] & (column < HALF)[None, :]
        source = x_ptr + head[:, None] * x_head_stride + column[None, :]
        target = y_ptr + head[:, None] * y_head_stride + column[None, :]
        first = tl.load(source, mask=inside, other=0.0).to(COMPUTE)
        second = tl.load(source + HALF, mask=inside, other=0.0).to(COMPUTE)
        if BACKWARD:
            new_first = first * cos_first[None, :] + second * sin_second[None, :]
            new_second = second * cos_second[None, :] - first * sin_first[None, :]
        else:
            new_first = first * cos_first[None, :] - second * sin_first[None, :]
            new_second = second * cos_second[None, :] + first * sin_second[None, :]
        tl.store(target, new_first.to(y_ptr.dtype.element_ty), mask=inside)
        tl.store(target + HALF, new_second.to(y_ptr.dtype.element_ty), mask=inside)
        if REST_BLOCK > 0:
            behind = 2 * HALF + tl.arange(0, REST_BLOCK)
            inside = (head < HEADS)[:, None] & (behind < HEAD_SIZE)[None, :]
            rest = tl.load(x_ptr + head[:, None] * x_head_stride + behind[None, :], mask=inside, other=0.0)
            tl.store(y_ptr + head[:, None] * y_head_stride + behind[None, :], rest, mask=inside)


@jit
def load_halves(
    row_ptr: tl.tensor,
    HALF: tl.constexpr,  # noqa: N803
    HALF_BLOCK: tl.constexpr,  # noqa: N803
    COMPUTE: tl.constexpr,  # noqa: N803
) -> tuple[tl.tensor, tl.tensor]:
    """Both halves of one row of cos or sin."""
    column = tl.arange(0, HALF_BLOCK)
    first = tl.load(row_ptr + column, mask=column < HALF, other=0.0).to(COMPUTE)
    second = tl.load(row_ptr + HALF + column, mask=column < HALF, other=0.0).to(COMPUTE)
    return first, second


@jit
def rope_kernel(
    q_ptr: tl.tensor,
    k_ptr: tl.tensor,
    q_out_ptr: tl.tensor,
    k_out_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    q_batch_stride: tl.tensor,
    q_head_stride: tl.tensor,
    q_position_stride: tl.tensor,
    k_batch_stride: tl.tensor,
    k_head_stride: tl.tensor,
    k_position_stride: tl.tensor,
    q_out_batch_stride: tl.tensor,
    q_out_head_stride: tl.tensor,
    q_out_position_stride: tl.tensor,
    k_out_batch_stride: tl.tensor,
    k_out_head_stride: tl.tensor,
    k_out_position_stride: tl.tensor,
    cos_batch_stride: tl.tensor,
    cos_position_stride: tl.tensor,
    sin_batch_stride: tl.tensor,
    sin_position_stride: tl.tensor,
    positions: tl.tensor,
    HEAD_SIZE: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    Q_HEADS: tl.constexpr,  # noqa: N803
    K_HEADS: tl.constexpr,  # noqa: N803
    Q_HEAD_BLOCK: tl.constexpr,  # noqa: N803
    K_HEAD_BLOCK: tl.constexpr,  # noqa: N803
    HALF_BLOCK: tl.constexpr,  # noqa: N803
    REST_BLOCK: tl.constexpr,  # noqa: N803
    COMPUTE: tl.constexpr,  # noqa: N803
    BACKWARD: tl.constexpr,  # noqa: N803
) -> None:
    """One program per token: its cos and sin are read once for all heads of q and k."""
    batch = (tl.program_id(0) // positions).to(tl.int64)
    position = (tl.program_id(0) % positions).to(tl.int64)
    cos_row = cos_ptr + batch * cos_batch_stride + position * cos_position_stride
    sin_row = sin_ptr + batch * sin_batch_stride + position * sin_position_stride
    cos_first, cos_second = load_halves(cos_row, HALF, HALF_BLOCK, COMPUTE)
    sin_first, sin_second = load_halves(sin_row, HALF, HALF_BLOCK, COMPUTE)
    rotate_heads(
        q_ptr + batch * q_batch_stride + position * q_position_stride,
        q_out_ptr + batch * q_out_batch_stride + position * q_out_position_stride,
        q_head_stride,
        q_out_head_stride,
        cos_first,
        cos_second,
        sin_first,
        sin_second,
        HEAD_SIZE,
        HALF,
        Q_HEADS,
        Q_HEAD_BLOCK,
        HALF_BLOCK,
        REST_BLOCK,
        COMPUTE,
        BACKWARD,
    )
    rotate_heads(
        k_ptr + batch * k_batch_stride + position * k_position_stride,
        k_out_ptr + batch * k_out_batch_stride + position * k_out_position_stride,
        k_head_stride,
        k_out_head_stride,
        cos_first,
        cos_second,
        sin_first,
        sin_second,
        HEAD_SIZE,
        HALF,
        K_HEADS,
        K_HEAD_BLOCK,
        HALF_BLOCK,
        REST_BLOCK,
        COMPUTE,
        BACKWARD,
    )


def rotate(
    q: Tensor,
    k: Tensor,
    q_out: Tensor,
    k_out: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    in_place: bool = False,
    backward: bool = False,
) -> None:
    """Rotate q into q_out and k into k_out; heads' elements must be adjacent.

    `in_place` says that both outputs lie where their inputs do, so that what is not rotated is there already.
    """
    batches, q_heads, positions, head_size = q.shape
    size = cos.shape[-1]
    if batches * positions == 0 or size == 0:
        q_out.copy_(q)
        k_out.copy_(k)
        return
    cos, sin = adjacent(cos).expand(batches, -1, -1), adjacent(sin).expand(batches, -1, -1)
    strides = [stride for x in (q, k, q_out, k_out) for stride in x.stride()[:3]]
    half_block = next_power_of_2(size // 2)
    largest = max(1, TILE // half_block)
    rest = 0 if in_place else head_size - size
    with device_of(q):
        rope_kernel[(batches * positions,)](
            q,
            k,
            q_out,
            k_out,
            cos,
            sin,
            *strides,
            *cos.stride()[:2],
            *sin.stride()[:2],
            positions,
            HEAD_SIZE=head_size,
            HALF=size // 2,
            Q_HEADS=q_heads,
            K_HEADS=k.shape[1],
            Q_HEAD_BLOCK=min(next_power_of_2(q_heads), largest),
            K_HEAD_BLOCK=min(next_power_of_2(k.shape[1]), largest),
            HALF_BLOCK=half_block,
            REST_BLOCK=next_power_of_2(rest) if rest else 0,
            COMPUTE=accumulation_type(q, k),
            BACKWARD=backward,
            num_warps=4,
        )


def adjacent(x: Tensor) -> Tensor:
    """`x` with the elements of its last dimension adjacent, copied only where they are not."""
    return x if x.stride(-1) == 1 else x.contiguous()


def may_write_over(x: Tensor) -> bool:
    """Whether `x` can be written over once its caller allows it.

    Not a leaf that needs a gradient or a view of one, not the saved result of its own operation, not memory
    that several elements share, and not under a compiler, which plans memory itself.
    """
    owner = x if x._base is None else x._base
    if torch.compiler.is_compiling() or (x.requires_grad and (x.is_leaf or owner.is_leaf)):
        return False
    if any(hasattr(type(t.grad_fn), "_saved_result") for t in (x, owner)):
        return False
    extent = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1 and stride < extent:
            return False
        extent = max(extent, stride * size)
    return bool(x.stride(-1) == 1)


class RoPE(torch.autograd.Function):  # type: ignore[misc]
    """Saves cos and sin only."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, in_place: bool
    ) -> tuple[Tensor, Tensor]:
        # Parts of one storage (a fused projection) are left alone: they might overlap.
        over = [in_place and may_write_over(x) for x in (q, k)]
        if any(over) and q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr():
            over = [False, False]
        outputs = [
            x.detach() if over_x else torch.empty_like(adjacent(x))
            for x, over_x in zip((q, k), over, strict=True)
        ]
        rotate(adjacent(q), adjacent(k), outputs[0], outputs[1], cos, sin, in_place=all(over))
        for x, over_x in zip((q, k), over, strict=True):
            if over_x:
                torch.autograd.graph.increment_version(x)
        ctx.save_for_backward(cos, sin)
        ctx.strides = [torch.empty_like(adjacent(x), device="meta").stride() for x in (q, k)]
        return outputs[0], outputs[1]

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_q: Tensor, grad_k: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        cos, sin = ctx.saved_tensors
        grad_q, grad_k = adjacent(grad_q), adjacent(grad_k)
        # The order of q and k, which their projections want, not that of the attention's gradient.
        q_out, k_out = (
            torch.empty_strided(grad.shape, strides, dtype=grad.dtype, device=grad.device)
            for grad, strides in zip((grad_q, grad_k), ctx.strides, strict=True)
        )
        rotate(grad_q, grad_k, q_out, k_out, cos, sin, backward=True)
        return q_out, k_out, None, None, None
