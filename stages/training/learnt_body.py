"""Whether training has changed weights: some of each tensor are looked at before and after. No number is drawn."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

# Of each tensor so many weights, evenly spread: a large model has a thousand tensors, and this takes 4 MB of memory.
LOOKED_AT = 1024
# What moves by less moves no logit: weights are of the size of 0.01. Factors that begin at 0 would take any step.
LEAST = 1e-9


def some_weights(model: Any) -> dict[str, Tensor]:
    """[K] of each tensor that is trained, copied; none of a tensor that is not here or no plain one."""
    return {
        name: _some(weight)
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.numel() and type(weight.data) is Tensor and not weight.is_meta
    }


def _some(weight: Tensor) -> Tensor:
    flat = weight.detach().reshape(-1)
    count = min(LOOKED_AT, flat.numel())
    places = torch.arange(count, device=flat.device) * flat.numel() // count
    return flat[places].float().cpu()


def change_since(before: Mapping[str, Tensor], model: Any) -> dict[str, int | float]:
    """Of the weights that were looked at before, the share that is another one now."""
    now = some_weights(model)
    pairs = [(old, now[name]) for name, old in before.items() if name in now and len(now[name]) == len(old)]
    count = sum(len(old) for old, _ in pairs)
    if not count:
        return {}
    changed = sum(int(((new - old).abs() > LEAST).sum()) for old, new in pairs)
    return {"weights_looked_at": count, "changed_weights_share": round(changed / count, 6)}
