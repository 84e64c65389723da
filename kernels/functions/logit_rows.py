"""Logits of any strides as rows that a kernel can walk: what `entropy` and `selective_log_softmax` share.

``logits[:, :-1]`` of a (B, L, V) tensor is no (N, V) view, yet its rows lie at ``b * stride_b + l * stride_l``.
A kernel that takes two row strides reads it (and any transpose) where it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tunemill.kernels.functions.triton_runtime import next_power_of_2

# Logits per step of a row. Read at each call, so that a test can make several blocks out of a short row.
BLOCK = 8192
# Bytes of a row that a program fetches ahead of the step it computes, into shared memory. Three programs of two
# 16 KiB blocks keep some 96 KiB on their way to each multiprocessor; a third of that would do for 4.8 TB/s, but
# the two reductions of every step leave gaps. AMD has 64 KiB of shared memory in all.
BYTES_AHEAD = 32768


@dataclass(frozen=True, kw_only=True)
class LogitRows:
    """Row n of `logits` starts at ``(n // inner) * outer_stride + (n % inner) * inner_stride``."""

    logits: Tensor
    count: int
    inner: int
    outer_stride: int
    inner_stride: int
    vocabulary: int
    vocabulary_stride: int

    @property
    def layout(self) -> tuple[int, int, int, int, int]:
        """The integers that a kernel takes, in the order in which it takes them."""
        return self.inner, self.outer_stride, self.inner_stride, self.vocabulary, self.vocabulary_stride


def logit_rows(logits: Tensor) -> LogitRows:
    """Describe `logits` (..., V) without a copy; more than two incompatible row strides force a copy."""
    if logits.dim() == 0 or logits.shape[-1] == 0 or not logits.is_floating_point():
        found = f"{logits.dtype} of shape {tuple(logits.shape)}"
        raise ValueError(f"logits: {found}; they are floating point, of shape (..., vocabulary)")
    dimensions = _merged_rows(logits)
    if len(dimensions) > 2:
        logits = logits.contiguous()
        dimensions = _merged_rows(logits)
    (_, outer_stride), (inner, inner_stride) = [(1, 0)] * (2 - len(dimensions)) + dimensions
    return LogitRows(
        logits=logits,
        count=math.prod(logits.shape[:-1]),
        inner=max(inner, 1),
        outer_stride=outer_stride,
        inner_stride=inner_stride,
        vocabulary=logits.shape[-1],
        vocabulary_stride=logits.stride(-1),
    )


def block_of(vocabulary: int) -> tuple[int, int]:
    """(logits per block, warps): up to 16 logits per thread, whole rows at once where they are short."""
    block = min(next_power_of_2(vocabulary), BLOCK)
    return block, min(max(block // 512, 1), 16)


def stages_of(block: int, element_size: int) -> int:
    """Steps of the loop over a row that overlap: one, and those whose blocks are fetched ahead."""
    return 1 + min(2, BYTES_AHEAD // (block * element_size))


def _merged_rows(logits: Tensor) -> list[tuple[int, int]]:
    """(size, stride) of the dimensions before the last, neighbours merged where one stride walks both."""
    merged: list[tuple[int, int]] = []
    for size, stride in zip(logits.shape[:-1], logits.stride()[:-1], strict=True):
        if size == 1:
            continue
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        else:
            merged.append((size, stride))
    return merged
