"""Dequantization of NF4 weights, single or double quantized, bit for bit what bitsandbytes computes.

    w_i = code16[q_i] * absmax[i // blocksize]
    absmax_j = code256[p_j] * nested_absmax[j // nested_blocksize] + offset      (double quantization)

Every product and sum is rounded to float32 on its own (no fused multiply-add), then w once to the output type.
Two codes to a byte, the first in the high half; a last odd value leaves the low half unused. Blocks run over the
flattened weight. (bitsandbytes' CPU code starts a new block with every row instead, which differs from its CUDA
code where the row length is not a multiple of the blocksize; this file follows the CUDA code.)

shapes: packed holds ceil(n / 2) bytes in any shape and any storage dtype; the result has `state.shape`, n values.
dtypes: float32, bfloat16, float16, as `state.dtype` says. No gradient: the weight is frozen.

source: QLoRA, https://arxiv.org/abs/2305.14314 (section 3; the sixteen values are in appendix E)
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from tunemill.kernels.functions.triton_runtime import (
    cdiv,
    check_one_device,
    device_of,
    interpreted,
    jit,
    runs_on,
    tl,
)

NF4_VALUES = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
VALUES_PER_PROGRAM = 8192
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class NestedState(Protocol):
    """Quantization of the absmax values themselves."""

    absmax: Tensor
    code: Tensor
    blocksize: int


class QuantState(Protocol):
    """What is read of `bitsandbytes.functional.QuantState`."""

    absmax: Tensor
    shape: Any
    dtype: torch.dtype
    blocksize: int
    quant_type: str
    offset: Any
    state2: Any


@cache
def code_table(device: torch.device) -> Tensor:
    """The sixteen values on `device`."""
    return torch.tensor(NF4_VALUES, dtype=torch.float32, device=device)


def check(packed: Tensor, state: QuantState) -> None:
    """Raise ValueError where `packed` and `state` are not an NF4 weight."""
    if state.quant_type != "nf4":
        raise ValueError(f"quant_type must be 'nf4', got {state.quant_type!r}")
    if state.dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, got {state.dtype}")
    if state.blocksize < 2 or state.blocksize & (state.blocksize - 1):
        raise ValueError(f"blocksize must be a power of two, got {state.blocksize}")
    values, stored = math.prod(state.shape), packed.numel() * packed.element_size()
    if stored < cdiv(values, 2):
        raise ValueError(f"{tuple(state.shape)} needs {cdiv(values, 2)} bytes, packed has {stored}")
    blocks = cdiv(values, state.blocksize)
    if state.absmax.numel() < blocks:
        raise ValueError(f"{tuple(state.shape)} needs {blocks} absmax values, got {state.absmax.numel()}")
    nested: NestedState | None = state.state2
    check_one_device(
        packed=packed, absmax=state.absmax, nested_absmax=None if nested is None else nested.absmax
    )


def as_bytes(packed: Tensor) -> Tensor:
    """The stored bytes, flat; quant_storage may have been any dtype."""
    return packed.contiguous().view(torch.uint8).reshape(-1)


def shaped(flat: Tensor, packed: Tensor, state: QuantState) -> Tensor:
    """The result in the weight's shape; a packed row vector stands for a transposed weight."""
    weight = flat.view(tuple(state.shape))
    return weight.t() if packed.dim() > 1 and packed.shape[0] == 1 and weight.dim() == 2 else weight


def block_scales(state: QuantState) -> Tensor:
    """absmax of each block in float32, with double quantization undone."""
    if state.state2 is None:
        return state.absmax.float()
    nested: NestedState = state.state2
    codes = state.absmax.reshape(-1)
    outer = nested.absmax.float().repeat_interleave(nested.blocksize)[: codes.numel()]
    return nested.code.float()[codes.long()] * outer + state.offset


def reference(packed: Tensor, state: QuantState) -> Tensor:
    """`dequantize_nf4` in plain PyTorch."""
    check(packed, state)
    values = math.prod(state.shape)
    stored = as_bytes(packed)
    codes = torch.stack((stored >> 4, stored & 15), dim=1).reshape(-1)[:values].long()
    scales = block_scales(state).repeat_interleave(state.blocksize)[:values]
    flat = (code_table(packed.device)[codes] * scales).to(state.dtype)
    return shaped(flat, packed, state)


@jit
def nf4_kernel(
    packed_ptr: tl.tensor,
    absmax_ptr: tl.tensor,
    table_ptr: tl.tensor,
    nested_code_ptr: tl.tensor,
    nested_absmax_ptr: tl.tensor,
    offset_ptr: tl.tensor,
    out_ptr: tl.tensor,
    stored: tl.tensor,
    values: tl.tensor,
    blocks: tl.tensor,
    NESTED: tl.constexpr,  # noqa: N803
    NESTED_BLOCK: tl.constexpr,  # noqa: N803
    HALF: tl.constexpr,  # noqa: N803
    ROWS: tl.constexpr,  # noqa: N803
) -> None:
    """One program dequantizes ROWS blocks of 2 * HALF values; absmax is read once per block."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = row < blocks
    if NESTED:
        scale_code = tl.load(absmax_ptr + row, mask=inside, other=0).to(tl.int32)
        outer = tl.load(nested_absmax_ptr + row // NESTED_BLOCK, mask=inside, other=0.0)
        scale = tl.load(nested_code_ptr + scale_code) * outer + tl.load(offset_ptr)
    else:
        scale = tl.load(absmax_ptr + row, mask=inside, other=0.0)
    place = row[:, None] * HALF + tl.arange(0, HALF)[None, :]
    pair = tl.load(packed_ptr + place, mask=place < stored, other=0).to(tl.int32)
    first = tl.load(table_ptr + (pair >> 4)) * scale[:, None]
    second = tl.load(table_ptr + (pair & 15)) * scale[:, None]
    both = tl.interleave(first, second)
    target = row[:, None] * (2 * HALF) + tl.arange(0, 2 * HALF)[None, :]
    tl.store(out_ptr + target, both.to(out_ptr.dtype.element_ty), mask=target < values)


def launch(packed: Tensor, state: QuantState) -> Tensor:
    """`dequantize_nf4` by the Triton kernel."""
    check(packed, state)
    values = math.prod(state.shape)
    stored, table = as_bytes(packed), code_table(packed.device)
    # The interpreter truncates to bfloat16 where the GPU rounds to nearest, so there PyTorch does the rounding.
    out = torch.empty(values, dtype=torch.float32 if interpreted else state.dtype, device=packed.device)
    blocks = cdiv(values, state.blocksize)
    nested: NestedState | None = state.state2
    if nested is None:
        scales = state.absmax.float().contiguous()
        nested_code = nested_absmax = offset = scales
    else:
        scales = state.absmax.contiguous()
        nested_code, nested_absmax = nested.code.float().contiguous(), nested.absmax.float().contiguous()
        offset = torch.as_tensor(state.offset, dtype=torch.float32, device=packed.device)
    rows = max(1, VALUES_PER_PROGRAM // state.blocksize)
    with device_of(packed):
        nf4_kernel[(max(cdiv(blocks, rows), 1),)](
            stored,
            scales,
            table,
            nested_code,
            nested_absmax,
            offset,
            out,
            stored.numel(),
            values,
            blocks,
            NESTED=nested is not None,
            NESTED_BLOCK=1 if nested is None else nested.blocksize,
            HALF=state.blocksize // 2,
            ROWS=rows,
            num_warps=4,
            enable_fp_fusion=False,  # code * absmax + offset must round twice, as in bitsandbytes
        )
    return shaped(out.to(state.dtype), packed, state)


def dequantize_nf4(packed: Tensor, state: QuantState) -> Tensor:
    """The dense weight [*state.shape] of `packed` in `state.dtype`.

    Args:
        packed: what `bitsandbytes.functional.quantize_4bit` or `Params4bit` stores.
        state: its quant_state; read, never changed.

    Raises:
        ValueError: for another quant_type or dtype, or tensors too small for the shape.
    """
    return launch(packed, state) if runs_on(packed) else reference(packed, state)
