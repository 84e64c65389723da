"""A stored model's weights by their names in the model, read from its files when they are asked for.

In files and in the model tensors may have other names, and one tensor of the model may be many of the files, as the
experts of a mixture are. Which is which are transformers' own rules for loading.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from tunemill.stages.errors import SourceError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.linearized import PARTS, expert_module


@dataclass(frozen=True)
class Group:
    """Tensors of the files that become tensors of the model together.

    `parts`: each one's name in the files and the pattern of `converter` that it is read by; `targets`: names in the
    model. Without a converter one tensor has one name, in both.
    """

    parts: tuple[tuple[str, str], ...]
    first: str
    converter: Any = None
    targets: tuple[str, ...] = ()

    def convert(self, tensors: Mapping[str, Any], model: Any) -> dict[str, Any]:
        """Tensors of the files, by their names there -> those of the model, by their names there."""
        if self.converter is None:
            return {self.first: tensors[self.parts[0][0]]}
        fresh = deepcopy(self.converter)
        for name, pattern in self.parts:
            fresh.add_tensor(self.first, name, pattern, tensors[name])
        made = fresh.convert(self.first, model=model, config=model.config)
        return {name: found[0] if isinstance(found, list) else found for name, found in made.items()}


class NamedWeights:
    """The weights of a model folder. `model`: its skeleton, which has the names."""

    def __init__(self, source: StoredBase, model: Any) -> None:
        self.source = source
        self.model = model
        self.groups = _groups(source, model)
        self.group_of = {target: group for group in self.groups for target in group.targets}
        self.shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        self.parameters = frozenset(name for name, _ in model.named_parameters(remove_duplicate=False))
        self.tied: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}

    def group(self, name: str) -> Group | None:
        """What a tensor of the model is read from, which of a tied one is that of the other; None for nothing."""
        for known in (name, self.tied.get(name, name), *(t for t, s in self.tied.items() if s == name)):
            if known in self.group_of:
                return self.group_of[known]
        return None

    def wants(self, name: str) -> bool:
        """Whether a tensor of the model is read: a parameter must be, and a buffer is where the files have it."""
        held = self.group(name) or self.group(_whole(name)[0])
        return name in self.parameters or held is not None

    def read(self, names: Iterable[str], at_once: Callable[..., Iterable[Any]] = map) -> dict[str, Any]:
        """The tensors, in the types that they are stored in; `at_once` may be the `map` of threads.

        Raises SourceError for one that is not there, or has another shape in the model.
        """
        holders = {name: (name, None) if self.group(name) is not None else _whole(name) for name in names}
        groups = {}
        for name, (holder, _) in holders.items():
            group = self.group(holder)
            if group is None:
                raise SourceError(
                    f"{self.source.folder}: {name}: not in its files, and tied to no other weight. The model is "
                    f"incomplete."
                )
            groups[group.first] = group
        made = dict(zip(groups, at_once(self._converted, groups.values()), strict=True))
        found: dict[str, Any] = {}
        for name, (holder, cut) in holders.items():
            group = self.group(holder)
            assert group is not None
            tensors = made[group.first]
            tensor = tensors[holder] if holder in tensors else tensors[self._other(holder, tensors)]
            if tensor.shape != self.shapes[holder]:
                raise SourceError(
                    f"{self.source.folder}: {holder}: {tuple(tensor.shape)} in its files, and its config.json makes it "
                    f"{tuple(self.shapes[holder])}. Config and weights are of different models."
                )
            found[name] = tensor if cut is None else _expert(tensor, *cut)
        return found

    def _converted(self, group: Group) -> dict[str, Any]:
        return group.convert({part: self.source.read(part) for part, _ in group.parts}, self.model)

    def _other(self, name: str, tensors: Mapping[str, Any]) -> str:
        ties = {name, self.tied.get(name, name)}
        return next(one for one in tensors if one in ties or self.tied.get(one) in ties)


def _groups(source: StoredBase, model: Any) -> list[Group]:
    rules = get_model_conversion_mapping(model)
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: rule for rule in converters for pattern in rule.source_patterns}
    names, prefix = model.state_dict(), model.base_model_prefix
    parts: dict[str, list[tuple[str, str]]] = {}
    used: dict[str, Any] = {}
    for stored in sorted(source.weights, key=dot_natural_key):
        name, pattern = rename_source_key(stored, renamings, converters, prefix, names)
        if name not in names and stored in names:
            name, pattern = rename_source_key(stored, [], [], base_model_prefix=prefix, meta_state_dict=names)
        if name in names:
            parts.setdefault(name, []).append((stored, pattern or stored))
            used[name] = None if pattern is None else by_pattern[pattern]
    found = []
    for first, of_first in parts.items():
        group = Group(tuple(of_first), first, used[first])
        shapes = {stored: source.shape(stored) for stored, _ in of_first}
        empty = {stored: torch.empty(shape, device="meta") for stored, shape in shapes.items()}
        found.append(Group(group.parts, first, group.converter, tuple(group.convert(empty, model))))
    return found


def _whole(name: str) -> tuple[str, tuple[str, int] | None]:
    """Of the weight of a linear module of an expert: the parameter that holds it, and which of it."""
    found = expert_module(name.removesuffix(".weight"))
    if found is None:
        return name, None
    experts, part, number = found
    return f"{experts}.{'down_proj' if part == PARTS[2] else 'gate_up_proj'}", (part, number)


def _expert(parameter: Any, part: str, number: int) -> Any:
    """Llama 4: (expert, in, out), gate and up side by side."""
    one = parameter[number]
    if part != PARTS[2]:
        one = one.chunk(2, dim=-1)[PARTS.index(part)]
    return one.T.contiguous()
