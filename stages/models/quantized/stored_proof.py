"""Proof by the headers of files: what must be quantized is, in its type and size, and all else is as it was."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunemill.stages.errors import UserError
from tunemill.stages.models.linear_weights import (
    FLOATS,
    Kind,
    Sizes,
    kinds,
    layer_of,
    of_experts,
    saved_names,
)
from tunemill.stages.models.quantization import QuantizationSettings, check_left_out
from tunemill.stages.models.quantized.stored import Stored, stored
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

# A part of a quantized tensor, as torchao names it.
PART = re.compile(
    r"(?P<module>.+)\._(?P<name>\w+?)_"
    r"(?P<part>qdata|scale_and_zero|per_tensor_scale|scale|zero_point|act_pre_scale)"
)


@dataclass(frozen=True)
class Files:
    """Bytes of the tensors of a source and of what was made of it, and the share of linear layers' weights that stayed
    as they were. `bits`: what a quantized weight takes, scales included."""

    size_before: int
    size: int
    left_out: float
    bits: float


@dataclass(frozen=True)
class Found:
    """What stands for one tensor in the files of a quantized model: type and count of its numbers, and all bytes."""

    dtype: str
    elements: int
    size: int


@dataclass(frozen=True)
class Rule:
    """How weights must be stored. `dtype` is the type that the source's config.json names: others become it."""

    settings: QuantizationSettings
    trained: bool
    dtype: str | None

    def types(self, tensor: StoredTensor) -> list[str]:
        """Types that its numbers may have when it was loaded."""
        return [tensor.dtype] if self.dtype is None else sorted({tensor.dtype, self.dtype})

    def must(self, tensors: Sequence[StoredTensor], kind: Kind) -> list[Stored]:
        """What may stand for tensors of one type of numbers: one possibility for each type they may have."""
        return [self._sum(tensors, kind, FLOATS[dtype]) for dtype in self.types(tensors[0])]

    def _sum(self, tensors: Sequence[StoredTensor], kind: Kind, itemsize: int) -> Stored:
        each = [
            stored(
                self.settings, t.elements // t.shape[-1], t.shape[-1], itemsize, trained=self.trained, of=kind
            )
            for t in tensors
        ]
        return Stored(each[0].dtype, sum(one.size for one in each))

    def quantizes(self, kind: Kind) -> bool:
        """Whether a tensor of this kind must be quantized."""
        return kind == "linear" or (kind == "embedding" and self.settings.quantize_embedding)


def prove_files(source: Path, result: Path, settings: QuantizationSettings, *, trained: bool) -> Files:
    """Compare the headers of two folders' files by what names and shapes alone say of them.

    Raises UserError for a weight of a linear layer that is not quantized, or not in the type or size that it must
    have; for any other tensor that changed its shape or is gone; and where more than half of the weights of linear
    layers stay as they were.
    """
    before, after = kinds(source), tensors_of_model(result)
    sizes = Sizes.of(source)
    rule = Rule(settings, trained, sizes.dtype)
    plain = {name: tensor for name, tensor in after.items() if PART.fullmatch(name) is None}
    found = _joined(after)
    if not found:
        raise _fault("no tensor is quantized: the conversion matched no module")
    seen, experts, size, left = set[str](), defaultdict[str, list[StoredTensor]](list), 0, 0
    for name, (kind, tensor) in before.items():
        if kind == "experts":
            experts[layer_of(name)].append(tensor)
            continue
        there = _name_there(tensor, {**plain, **found}, before)
        if there is None and not _is_copy(tensor, before):
            raise _fault(f"{name} is gone")
        if there is not None:
            size += _size_of(there, tensor, kind, rule, plain, found)
            seen.add(there)
    for layer, tensors in experts.items():
        kept = {name: t for name, t in plain.items() if layer_of(name) == layer and of_experts(t, sizes)}
        names, taken = _experts(layer, tensors, rule, found, kept)
        seen, size = seen | names, size + taken
        left += 0 if names <= found.keys() else sum(tensor.elements for tensor in tensors)
    if unknown := sorted({*plain, *found} - seen):
        raise _fault(
            f"{unknown[0]} is in the files, and nothing in the model that was quantized stands for it"
        )
    total = sum(tensor.elements for kind, tensor in before.values() if kind in ("linear", "experts"))
    check_left_out(left / total, settings)
    stored_size = sum(tensor.size for tensor in after.values())
    if size != stored_size:
        raise _fault(f"{stored_size} bytes are stored, and {size} follow from the shapes")
    bits = 8 * sum(one.size for one in found.values()) / sum(one.elements for one in found.values())
    return Files(sum(tensor.size for _, tensor in before.values()), stored_size, left / total, bits)


def _fault(what: str) -> UserError:
    return UserError(
        f"quantization: {what}. What was written is not what was asked for: quantize again, and if that does not "
        f"help, report the family of the model."
    )


def _joined(after: Mapping[str, StoredTensor]) -> dict[str, Found]:
    """Name of each quantized tensor, as the model names it -> what its parts are together."""
    parts = defaultdict[str, list[tuple[str, StoredTensor]]](list)
    for name, tensor in after.items():
        if (match := PART.fullmatch(name)) is not None:
            parts[f"{match['module']}.{match['name']}"].append((match["part"], tensor))
    found = {}
    for name, tensors in parts.items():
        numbers = [tensor for part, tensor in tensors if part == "qdata"]
        if len(numbers) != 1:
            raise _fault(f"{name} has scales and no numbers")
        in_a_byte = 2 if numbers[0].dtype == "U8" else 1
        size = sum(tensor.size for _, tensor in tensors)
        found[name] = Found(numbers[0].dtype, numbers[0].elements * in_a_byte, size)
    return found


def _name_there(
    tensor: StoredTensor, there: Mapping[str, StoredTensor | Found], before: Mapping[str, object]
) -> str | None:
    """The name in the result. Some families have other names in files: then it is the only one of its layer and size
    that the source does not have."""
    name = tensor.name
    if same := [one for one in saved_names(name) if one in there]:
        return same[0]
    new = [one for one in there if one not in before and layer_of(one) == layer_of(name)]
    alike = [one for one in new if there[one].elements == tensor.elements]
    return alike[0] if len(alike) == 1 else None


def _is_copy(tensor: StoredTensor, before: Mapping[str, tuple[Kind, StoredTensor]]) -> bool:
    """Whether another tensor holds the same bytes, as a tied head that is stored beside the embeddings."""
    alike = (t for _, t in before.values() if t.name != tensor.name and t.shape == tensor.shape)
    return any(_bytes(other) == _bytes(tensor) for other in alike)


def _bytes(tensor: StoredTensor) -> bytes:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        return file.read(tensor.size)


def _size_of(
    name: str,
    tensor: StoredTensor,
    kind: Kind,
    rule: Rule,
    plain: Mapping[str, StoredTensor],
    found: Mapping[str, Found],
) -> int:
    """Bytes that stand for one tensor, which are those that must."""
    if rule.quantizes(kind) and name not in found:
        raise _fault(f"{name} is stored in full precision ({plain[name].dtype})")
    if name in found and (rule.quantizes(kind) or kind == "router"):
        return _check(name, [tensor], kind, rule, found[name])
    if name in found:
        raise _fault(f"{name} is quantized, and was not to be")
    there = plain[name]
    if there.dtype not in rule.types(tensor) or there.shape != tensor.shape:
        raise _fault(
            f"{name} is stored as {there.dtype} {list(there.shape)}, and was {tensor.dtype} {list(tensor.shape)}"
        )
    return there.size


def _check(name: str, tensors: Sequence[StoredTensor], kind: Kind, rule: Rule, found: Found) -> int:
    """Bytes of a quantized tensor that stands for others, which are as many as must be."""
    possible = rule.must(tensors, kind)
    elements = sum(tensor.elements for tensor in tensors)
    if found.dtype != possible[0].dtype:
        raise _fault(f"{name} is stored as {found.dtype}, and {rule.settings.words} is {possible[0].dtype}")
    if found.elements != elements or found.size not in {one.size for one in possible}:
        raise _fault(
            f"{name} has {found.elements} numbers in {found.size} bytes, and must have {elements} in "
            f"{possible[0].size}"
        )
    return found.size


def _experts(
    layer: str,
    tensors: list[StoredTensor],
    rule: Rule,
    found: Mapping[str, Found],
    kept: Mapping[str, StoredTensor],
) -> tuple[set[str], int]:
    """Names and bytes of what stands for a layer's experts: all of them quantized, or all as they were.

    Files may hold experts one by one where the model has them in one tensor, so only sums can be compared.
    """
    quantized = {name for name in found if layer_of(name) == layer and ".experts." in name}
    if quantized and kept:
        raise _fault(f"{min(kept)} is stored in full precision, and other experts of {layer} are not")
    if kept:
        if sum(tensor.elements for tensor in kept.values()) != sum(tensor.elements for tensor in tensors):
            raise _fault(f"{layer}: the weights of its experts are not all there")
        return set(kept), sum(tensor.size for tensor in kept.values())
    if not quantized:
        raise _fault(f"{layer}: its experts are gone")
    types = {found[name].dtype for name in quantized}
    together = Found(
        types.pop() if len(types) == 1 else "several types",
        sum(found[name].elements for name in quantized),
        sum(found[name].size for name in quantized),
    )
    return quantized, _check(f"{layer}: what stands for its experts", tensors, "experts", rule, together)
