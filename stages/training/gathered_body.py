"""Weights that several processes share, put together again tensor by tensor: no process ever holds them all."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft.utils import get_peft_model_state_dict
from torch import Tensor
from torch.distributed.tensor import DTensor

from tunemill.stages.models.stored_tensor_body import TYPES
from tunemill.stages.models.weights import StoredTensor, header_bytes, tensors_of_file
from tunemill.stages.report import Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.keys.training import TrainingKeys

GATHERED = "gathered.safetensors"
# What safetensors calls types.
NAMES = {dtype: name for name, dtype in TYPES.items()}


def whole_shape(tensor: Tensor) -> tuple[int, ...]:
    """The shape of a tensor of which this process may hold a part: FSDP's, or ZeRO-3's."""
    return tuple(getattr(tensor, "ds_shape", tensor.shape))


def whole(tensor: Tensor, keeps: bool) -> Tensor | None:
    """The whole tensor in main memory, where this process `keeps` it. All processes call this for the same tensor."""
    if isinstance(tensor, DTensor):
        found = tensor.full_tensor()
        return found.detach().cpu() if keeps else None
    if hasattr(tensor, "ds_tensor"):
        # Only where ZeRO-3 runs: DeepSpeed takes seconds to import.
        import deepspeed

        with deepspeed.zero.GatheredParameters([tensor]):
            return tensor.detach().cpu().clone() if keeps else None
    return tensor.detach().cpu() if keeps else None


def named_tensors(model: Any) -> dict[str, Tensor]:
    """The parameters and stored buffers of a model as they are here, by the names of its state; tied ones by each."""
    found: dict[str, Tensor] = model.state_dict(keep_vars=True)
    return found


def gather(tensors: Mapping[str, Tensor], keeps: bool) -> dict[str, Tensor]:
    """All of some small tensors whole, such as an adapter's, where this process `keeps` them; else none."""
    found = {name: whole(tensor, keeps) for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def gather_through(path: Path, tensors: Mapping[str, Tensor], keeps: bool) -> dict[str, Tensor]:
    """All of some tensors whole, where this process `keeps` them: in a file, so that they take no memory until read.

    All processes call this with the same tensors. What is tied is stored once, and tied again.
    """
    first: dict[int, str] = {id(tensor): name for name, tensor in reversed([*tensors.items()])}
    once = {name: tensor for name, tensor in tensors.items() if first[id(tensor)] == name}
    _write(path, once, keeps)
    if not keeps:
        return {}
    places = tensors_of_file(path)
    found = {name: _mapped(places[name], tensor.dtype) for name, tensor in once.items()}
    return {name: found[first[id(tensor)]] for name, tensor in tensors.items()}


def _write(path: Path, tensors: Mapping[str, Tensor], keeps: bool) -> None:
    with path.open("wb") if keeps else nullcontext() as file:
        if file is not None:
            file.write(_header(tensors))
        for tensor in tensors.values():
            found = whole(tensor, keeps)
            if file is not None and found is not None:
                file.write(found.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _mapped(place: StoredTensor, dtype: torch.dtype) -> Tensor:
    """Each has a storage of its own: tensors that share one are copied by whoever saves them."""
    if not place.elements:
        return torch.empty(place.shape, dtype=dtype)
    read = np.memmap(place.file, np.uint8, mode="c", offset=place.start, shape=(place.size,))
    return torch.from_numpy(read).view(dtype).reshape(place.shape)


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, tensor in tensors.items():
        shape = whole_shape(tensor)
        end = start + torch.Size(shape).numel() * tensor.element_size()
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": (start, end)}
        start = end
    return header_bytes(entries)


def gathered(config: TrainingKeys, model: Any, out: Workspace) -> dict[str, Tensor] | None:
    """The adapter's weights, or the model's, whole, in the first process; None where each process has them anyway.

    All processes call this. Those of a model lie in a file beside the checkpoints until `forget_gathered`.
    """
    if not config.sharding.splits:
        return None
    tensors, keeps = named_tensors(model), ranks.is_first()
    if config.adapter is not None:
        weights = get_peft_model_state_dict(model, state_dict=tensors, save_embedding_layers=False)
        return gather(weights, keeps)
    return gather_through(out.checkpoints / GATHERED, tensors, keeps)


def forget_gathered(out: Workspace) -> None:
    """Remove the file of gathered weights, if any."""
    (out.checkpoints / GATHERED).unlink(missing_ok=True)


def parts_of(model: Any) -> dict[str, int | str]:
    """Figures of a model that is in parts: how many of its parameters are, and how they are laid out."""
    parameters = list(model.parameters())
    layouts = {str(one.placements) for one in parameters if isinstance(one, DTensor)}
    zeros = sum(hasattr(one, "ds_tensor") for one in parameters)
    inside = sum(isinstance(one, DTensor) for one in parameters) + zeros
    if not inside:
        return {}
    return {
        "parameters_in_parts": inside,
        "parameters_whole": len(parameters) - inside,
        "layout": "; ".join(sorted(layouts)) or "ZeRO-3",
    }
