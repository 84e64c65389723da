"""The fixed tokens on which two models are compared, and what a model says to them."""

from typing import Any

import torch

SEQUENCES, TOKENS = 4, 24


def fixed_tokens(vocabulary: int) -> Any:
    """[4, 24] token ids, the same for every model with this vocabulary."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(vocabulary, (SEQUENCES, TOKENS), generator=random)


def logits_of(model: Any, ids: Any) -> Any:
    """[B, L, V] float32 logits of token ids [B, L]; of a model that scores sequences those of each beginning."""
    with torch.no_grad():
        found = model(input_ids=ids, use_cache=False).logits.float()
        if found.ndim == 3:
            return found
        lengths = range(1, ids.shape[1] + 1)
        return torch.stack(
            [model(input_ids=ids[:, :n], use_cache=False).logits.float() for n in lengths], dim=1
        )
