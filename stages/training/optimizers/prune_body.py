"""Making AdamW forget a share of what it knows of some parameters: ReLoRA's partial reset."""

from collections.abc import Iterable
from typing import Any

import torch

# Names of the first and second moments: PyTorch's AdamW, bitsandbytes' AdamW.
MOMENTS = (("exp_avg", "exp_avg_sq"), ("state1", "state2"))
# Entries that share a scale in the 8-bit states of bitsandbytes.
BLOCK = 256


def prune(optimizer: Any, parameters: Iterable[Any], method: str, share: float) -> None:
    """Set both moments to zero for a share of each parameter's entries.

    `magnitude`: those with the smallest first moments; any other method: random ones, by torch's random state.
    Both moments go at the same places: a first moment over a second one of zero would be a huge step.
    """
    for parameter in parameters:
        state = optimizer.state.get(parameter)
        if not state:
            continue
        names = next(pair for pair in MOMENTS if pair[0] in state)
        if method == "magnitude":
            lost = _smallest(_values(state, names[0]).abs(), share)
        else:
            lost = torch.rand(parameter.shape, device=parameter.device) < share
        for number, name in enumerate(names, start=1):
            tensor = state[name]
            in_codes = tensor.dtype == torch.uint8
            tensor[lost.to(tensor.device)] = int(state[f"qmap{number}"].abs().argmin()) if in_codes else 0


def _smallest(sizes: Any, share: float) -> Any:
    """Where the `share` smallest entries are; equal ones go together."""
    count = round(share * sizes.numel())
    if not count:
        return torch.zeros_like(sizes, dtype=torch.bool)
    return sizes <= sizes.flatten().kthvalue(count).values


def _values(state: Any, name: str) -> Any:
    """The first moment, out of its 8-bit codes where it is kept so."""
    tensor = state[name]
    if tensor.dtype != torch.uint8:
        return tensor
    scales = state["absmax1"].repeat_interleave(BLOCK)[: tensor.numel()]
    return state["qmap1"][tensor.long()] * scales.view(tensor.shape)
