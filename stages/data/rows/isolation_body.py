"""Whether a model keeps the rows of one sequence apart."""

from collections.abc import Callable
from typing import Any

import torch


def rows_leak(forward: Callable[..., Any], device: Any, under_mask: bool = False) -> bool:
    """Whether a row in a pack sees its neighbour: the model ignores where position ids start anew.

    Two rows of six tokens; other tokens in the first must leave the second's logits alone, up to rounding
    (a hundredth of what they change in the first). `under_mask`: with an attention mask, in which no token is padding.
    """
    positions = torch.arange(6, device=device).repeat(1, 2)
    one = torch.tensor([[1, 2, 3, 4, 5, 6, 1, 3, 5, 2, 4, 6]], device=device)
    mask = {"attention_mask": torch.ones_like(one)} if under_mask else {}
    other = one.clone()
    other[0, :6] = torch.tensor([6, 5, 4, 3, 2, 1], device=device)
    with torch.no_grad():
        a, b = (
            forward(input_ids=ids, position_ids=positions, use_cache=False, **mask).logits
            for ids in (one, other)
        )
    change = (a - b).abs().float()
    return bool(change[0, 6:].max() > 0.01 * change[0, :6].max())
