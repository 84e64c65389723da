"""Stored weights as float32, in memory that is used again.

Memory that is fresh costs more than what is read into it: the system clears each page of it when it is first touched.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from tunemill.stages.models.named_weights_body import NamedWeights
from tunemill.stages.models.stored_tensor_body import TYPES, read_blocks
from tunemill.stages.models.weights import StoredTensor

# Types all of whose numbers float32 has.
WITHIN_FLOAT32 = ("F32", "BF16", "F16")


class Floats:
    """Memory for some weights at a time: read what comes next, and what was read before is gone."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def read(
        self, weights: NamedWeights, names: Iterable[str], at_once: Callable[..., Iterable[Any]] = map
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Name in the model -> the tensor in float32, and of those whose numbers it may not all have, as it is stored;
        `at_once` may be the `map` of threads. Raises SourceError as `NamedWeights.read` does."""
        wanted = list(names)
        places = {name: place for name in wanted if (place := _plain(weights, name)) is not None}
        stored = weights.read([name for name in wanted if name not in places], at_once)
        given = self._pieces(places)
        for _ in at_once(_fill, places.values(), given.values()):
            pass
        converted = dict(zip(stored, at_once(torch.Tensor.float, stored.values()), strict=True))
        return {name: given[name] if name in given else converted[name] for name in wanted}, stored

    def _pieces(self, places: Mapping[str, StoredTensor]) -> dict[str, Any]:
        count = sum(place.elements for place in places.values())
        if count > self._memory.numel():
            # The old one is let go of before there is a new one.
            self._memory = torch.empty(0)
            self._memory = torch.empty(count)
        parts = self._memory[:count].split([place.elements for place in places.values()])
        return {
            name: part.view(place.shape) for (name, place), part in zip(places.items(), parts, strict=True)
        }


def stored_type(weights: NamedWeights, name: str) -> Any:
    """The type that a tensor of the model is stored in; None for one that is made of several, or of a quantized one."""
    place = _plain(weights, name)
    return None if place is None else TYPES[place.dtype]


def _plain(weights: NamedWeights, name: str) -> StoredTensor | None:
    """Where a tensor of the model is stored, if one is stored as it."""
    group = weights.group(name)
    if group is None or group.converter is not None or group.parts[0][0] in weights.source.quantized:
        return None
    place = weights.source.tensors.get(group.parts[0][0])
    if place is None or place.dtype not in WITHIN_FLOAT32 or place.shape != tuple(weights.shapes[name]):
        return None
    return place


def _fill(place: StoredTensor, out: Any) -> None:
    flat = out.view(-1)
    for start, numbers in read_blocks(place):
        flat[start : start + len(numbers)] = numbers
