"""What keeps packed sequences from attending across their borders, from position ids alone.

A token continues the sequence of the token before it in its row iff its position is that token's plus one; every
other token, and the first of each row, begins a sequence:

    begins_bl = (l = 0) or (p_bl != p_b,l-1 + 1)
    s_bl      = sum_{m <= l} begins_bm                         number of the sequence, within the row
    mask_bij  = (s_bi = s_bj) and (j <= i if causal)           True: i attends to j
    cu        = flat places where begins is True, then B * L   the borders that varlen attention kernels take

Shapes: position_ids (B, L), integers; mask (B, 1, L, L), bool; cu (S + 1,), int32.

There is no Triton kernel here on purpose. s is one cumulative sum over B * L integers; the mask is one broadcast
comparison, which writes each of its B * L * L bytes once and reads next to nothing, and which torch.compile fuses into
one kernel. A kernel of our own would write the same bytes. What costs time in the usual code is not the arithmetic
but ``nonzero`` and ``.item()``, which wait for the device; nothing here does. A model that can use `cu` should: then no
mask exists at all.

Nothing here has a gradient. Source of the varlen form: Dao et al. 2022, "FlashAttention" (arXiv 2205.14135).
"""

from __future__ import annotations

import torch
from torch import Tensor


def reference(position_ids: Tensor, *, causal: bool = True) -> Tensor:
    """The mask, sequence by sequence in a Python loop."""
    _check(position_ids)
    batch, length = position_ids.shape
    mask = torch.zeros((batch, 1, length, length), dtype=torch.bool, device=position_ids.device)
    for b, positions in enumerate(position_ids.tolist()):
        begins = [i for i in range(length) if i == 0 or positions[i] != positions[i - 1] + 1]
        for begin, end in zip(begins, [*begins[1:], length], strict=True):
            mask[b, 0, begin:end, begin:end] = True
    return mask.tril() if causal else mask


def packed_cross_attention_mask(position_ids: Tensor, *, causal: bool = True) -> Tensor:
    """Block-diagonal boolean mask (B, 1, L, L) of position_ids (B, L); True where a token attends."""
    _check(position_ids)
    sequence_bl = _begins(position_ids).cumsum(dim=1)
    mask_bll = sequence_bl.unsqueeze(2) == sequence_bl.unsqueeze(1)
    if causal:
        place_l = torch.arange(position_ids.shape[1], device=position_ids.device)
        mask_bll = mask_bll & (place_l.unsqueeze(1) >= place_l.unsqueeze(0))
    return mask_bll.unsqueeze(1)


def cumulative_sequence_lengths(position_ids: Tensor, *, max_sequences: int | None = None) -> Tensor:
    """Borders (S + 1,) int32 of the sequences in position_ids (B, L) read as one row of B * L tokens.

    How many sequences there are is known only on the device, so S is `max_sequences` (B * L when None) and
    the borders past the last sequence repeat B * L: sequences of length 0, which varlen attention kernels
    skip. More sequences than `max_sequences` is an assertion on the device (RuntimeError on a CPU), for a
    border that is missing would join two sequences without a sign.
    """
    _check(position_ids)
    tokens = position_ids.numel()
    if max_sequences is not None and max_sequences < 1:
        raise ValueError(f"max_sequences: {max_sequences}; at least 1")
    most = tokens if max_sequences is None else max_sequences
    begins_n = _begins(position_ids).reshape(-1)
    sequence_n = begins_n.cumsum(dim=0) - 1
    if max_sequences is not None:
        torch._assert_async(begins_n.sum() <= most)
    # Tokens that begin nothing, and sequences past the end, write into one slot more, which is cut off.
    slot_n = torch.where(begins_n, sequence_n, most + 1).clamp(max=most + 1)
    borders = torch.full((most + 2,), tokens, dtype=torch.int32, device=position_ids.device)
    place_n = torch.arange(tokens, dtype=torch.int32, device=position_ids.device)
    return borders.scatter_(0, slot_n, place_n)[: most + 1]


def _check(position_ids: Tensor) -> None:
    if position_ids.dim() != 2 or position_ids.is_floating_point() or position_ids.dtype == torch.bool:
        found = f"{position_ids.dtype} of shape {tuple(position_ids.shape)}"
        raise ValueError(f"position_ids: {found}; they are integers of shape (batch, length)")


def _begins(position_ids: Tensor) -> Tensor:
    """(B, L) bool: whether a token is the first of its sequence."""
    begins_bl = torch.ones(position_ids.shape, dtype=torch.bool, device=position_ids.device)
    begins_bl[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    return begins_bl
