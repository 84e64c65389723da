"""Writing the merged weights tensor by tensor, into shards like those of the base."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.core_model_loading import revert_weight_conversion

from tunemill.stages.errors import UserError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.files import INDEX_FILE, copy_file, model_files, weight_files
from tunemill.stages.models.merged.change_body import Change, LowRank
from tunemill.stages.models.merged.names_body import Names
from tunemill.stages.models.merged.rows_body import changed_by_rows, copied
from tunemill.stages.models.merged.shards_body import Shard, add_to_index, laid_out_as
from tunemill.stages.models.named_weights_body import Group
from tunemill.stages.models.stored_tensor_body import TYPES
from tunemill.stages.models.weights import StoredTensor
from tunemill.stages.models.workers_body import give_back_memory, workers
from tunemill.stages.report import Report


@dataclass(frozen=True)
class Folding:
    """What is folded into what: a base, of it the quantized weights where there are such, and changes by names in the
    model. `own_head`: whether the output head, which the base ties to its embeddings, gets weights of its own; they are
    the embeddings changed by `head`."""

    names: Names
    frozen: StoredBase | None
    changes: Mapping[str, Change]
    own_head: bool = False
    head: Change | None = None

    def read(self, stored: str) -> Any:
        """A tensor of the files before the adapter, as its weights are quantized."""
        if self.frozen is not None and stored in self.frozen.quantized:
            return self.frozen.read(stored)
        return self.names.weights.source.read(stored)

    def stays(self, stored: str, group: Group | None) -> bool:
        """Whether a tensor of the files, of which `group` is changed, is what it was."""
        return group is None and (self.frozen is None or stored not in self.frozen.quantized)

    def of_rows(self, stored: str, group: Group | None) -> Callable[[Any, slice], Any] | None:
        """What changes some rows of a tensor of the files by themselves, if there is such a thing."""
        if group is None or group.converter is not None or not self.stays(stored, None):
            return None
        change = self.changes[group.first]
        if not isinstance(change, LowRank) or change.bits is not None:
            return None
        return change.of_rows(self.names.weights.source.tensors[stored].shape)


def fold(folding: Folding, target: Path, report: Report) -> int:
    """Copy the base's config, index and shards, and change what the adapter changes. In memory there are a few
    tensors of the base at a time, or those that the model holds as one, as the experts of a layer; shards in which
    nothing changes share their blocks where the file system can.

    Returns how many tensors the adapter made different.
    """
    source = folding.names.weights.source
    shards = weight_files(source.folder)
    for path in model_files(source.folder):
        if path not in shards:
            copy_file(path, target / path.name)
    quantized = frozenset() if folding.frozen is None else folding.frozen.quantized
    assert quantized <= source.tensors.keys(), (
        f"not in the base: {sorted(quantized - source.tensors.keys())[:3]}"
    )
    groups = {name: group for group in _changed_groups(folding) for name, _ in group.parts}
    head = _head(folding)
    opened: dict[Path, Shard] = {}
    changed = 0
    with ExitStack() as stack:
        for shard in shards:
            here = {name for name, place in source.tensors.items() if place.file == shard}
            extra = head if head is not None and head.file == shard else None
            if here & (groups.keys() | quantized) or extra is not None:
                opened[shard] = stack.enter_context(laid_out_as(shard, target / shard.name, extra))
            else:
                copy_file(shard, target / shard.name)
        pool = stack.enter_context(workers())
        for count, shard in enumerate(shards):
            work = _work(folding, groups, shard) if shard in opened else []

            def write(part: tuple[str, Group | None]) -> int:
                name, group = part
                place = source.tensors[name]
                if folding.stays(name, group):
                    return copied(place, opened[place.file])
                if (change := folding.of_rows(name, group)) is not None:
                    return changed_by_rows(place, opened[place.file], change)
                new, differ = _made(name, group, folding)
                for name, tensor in new.items():
                    opened[source.tensors[name].file].write(source.tensors[name], tensor)
                return differ

            changed += sum(pool.map(write, work))
            give_back_memory()
            report.progress(count + 1, len(shards), "shards")
        if head is not None:
            embeddings = folding.read(folding.names.weights.group_of[folding.names.embedding].parts[0][0])
            dtype = TYPES[head.dtype]
            own = embeddings.to(dtype) if folding.head is None else folding.head.apply(embeddings, dtype)
            opened[head.file].write(head, own)
            add_to_index(target / INDEX_FILE, head)
            changed += 1
    return changed


def _work(folding: Folding, groups: Mapping[str, Group], shard: Path) -> list[tuple[str, Group | None]]:
    """The tensors of a shard; of those that belong together the first stands for all, in the shard where it is."""
    places = folding.names.weights.source.tensors
    here = [name for name, place in places.items() if place.file == shard]
    return [
        (name, groups.get(name)) for name in here if name not in groups or groups[name].parts[0][0] == name
    ]


def _changed_groups(folding: Folding) -> Iterator[Group]:
    seen = set()
    for name in folding.changes:
        group = folding.names.weights.group(name)
        assert group is not None, name
        if group.first not in seen:
            seen.add(group.first)
            yield group


def _head(folding: Folding) -> StoredTensor | None:
    """Where the head's own weights go: behind the last tensor of the shard that holds the embeddings."""
    if not folding.own_head:
        return None
    names, tensors = folding.names, folding.names.weights.source.tensors
    (embeddings, _), *_ = names.weights.group_of[names.embedding].parts
    place = tensors[embeddings]
    bare = names.head not in tensors and not embeddings.startswith(names.embedding.partition(".")[0])
    name = names.head.removeprefix(f"{names.skeleton.base_model_prefix}.") if bare else names.head
    end = max(one.start + one.size for one in tensors.values() if one.file == place.file)
    return StoredTensor(place.file, name, place.dtype, place.shape, end, place.size)


def _made(name: str, group: Group | None, folding: Folding) -> tuple[dict[str, Any], int]:
    """Tensors of the files, as they are merged, and how many the adapter made different."""
    tensors = folding.names.weights.source.tensors
    dtype = TYPES[tensors[name].dtype]
    if group is None:
        return {name: folding.read(name).to(dtype)}, 0
    old = {part: folding.read(part) for part, _ in group.parts}
    if group.converter is None:
        new = {name: folding.changes[group.first].apply(old[name], dtype)}
    else:
        held = group.convert(old, folding.names.skeleton)
        changes = folding.changes
        new = _reverted(
            {
                one: changes[one].apply(held[one], dtype) if one in changes else held[one].to(dtype)
                for one in held
            },
            group,
            folding,
        )
    return new, sum(not torch.equal(old[part].to(dtype), new[part]) for part in new)


def _reverted(held: Mapping[str, Any], group: Group, folding: Folding) -> dict[str, Any]:
    """Tensors of the model, as those of the files that they are made of."""
    prefix = f"{folding.names.skeleton.base_model_prefix}."
    found = revert_weight_conversion(folding.names.skeleton, dict(held))
    wanted = {name for name, _ in group.parts}
    named = {
        next((one for one in (name, name.removeprefix(prefix), prefix + name) if one in wanted), name): tensor
        for name, tensor in found.items()
    }
    if named.keys() != wanted:
        raise UserError(
            f"merged: {group.first}: is read from {len(wanted)} tensors of the base's files, and cannot be written as "
            f"these. Save the base with transformers, and merge into that."
        )
    return named
