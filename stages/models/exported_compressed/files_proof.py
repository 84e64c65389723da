"""Proof by the headers of files: each weight of a linear layer is stored in its scheme, and all else is as it was."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_compressed.layout import parts_of
from tunemill.stages.models.exports import Scheme, group_of
from tunemill.stages.models.linear_weights import FLOATS, Sizes, kinds, saved_names
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

# What config.json must say of each scheme: the format of compressed-tensors, bits and type of weights, of inputs.
SAID: dict[Scheme, tuple[str, tuple[int, str], tuple[int, str] | None]] = {
    "fp8-dynamic": ("float-quantized", (8, "float"), (8, "float")),
    "w8a8": ("int-quantized", (8, "int"), (8, "int")),
    "w4a16": ("pack-quantized", (4, "int"), None),
    "nvfp4": ("nvfp4-pack-quantized", (4, "float"), (4, "float")),
}


@dataclass(frozen=True)
class Files:
    """Bytes of the tensors of a source and of what was made of it; name in the result -> its weight in the source, of
    each that is quantized.
    """

    size_before: int
    size: int
    quantized: Mapping[str, StoredTensor]


def prove_files(source: Path, result: Path, scheme: Scheme, group_size: int) -> Files:
    """Compare the headers of two folders' files by what names and shapes alone say of them.

    Raises UserError for a weight of a linear layer that is not stored as the scheme is, for any other tensor that
    changed or is gone, and for a config.json that says something else than the files hold.
    """
    before, after, dtype = kinds(source), tensors_of_model(result), Sizes.of(source).dtype
    _prove_config(result, scheme, group_of(scheme, group_size))
    seen, quantized, size = set[str](), dict[str, StoredTensor](), 0
    for name, (kind, tensor) in before.items():
        found = _name_there(name, after, quantized=kind == "linear")
        number = dtype or tensor.dtype
        if kind != "linear":
            wanted = {found: (number if tensor.dtype in FLOATS else tensor.dtype, tensor.shape)}
            if found not in after and _is_tied(name, before, result):
                continue
        else:
            module = found.rpartition(".")[0]
            parts = parts_of(scheme, tensor.shape, number, group_size)
            wanted = {f"{module}.{part}": held for part, held in parts.items()}
            quantized[module] = tensor
        for part, (kind_there, shape) in wanted.items():
            size += _check(part, after, kind_there, shape, scheme, is_linear=kind == "linear")
            seen.add(part)
    if not quantized:
        raise _fault("no tensor is quantized: the conversion matched no module")
    if unknown := sorted(after.keys() - seen):
        raise _fault(f"{unknown[0]} is in the files, and nothing in the model stands for it")
    stored = sum(tensor.size for tensor in after.values())
    if stored != size:
        raise _fault(f"{stored} bytes are stored, and {size} follow from the shapes")
    return Files(sum(tensor.size for _, tensor in before.values()), stored, quantized)


def _check(
    name: str,
    after: Mapping[str, StoredTensor],
    dtype: str,
    shape: tuple[int, ...],
    scheme: Scheme,
    *,
    is_linear: bool,
) -> int:
    """Bytes of a tensor that must be there, in this type and shape."""
    there = after.get(name)
    whole = after.get(f"{name.rpartition('.')[0]}.weight")
    if is_linear and whole is not None and whole.dtype in FLOATS:
        raise _fault(f"{whole.name} is stored in full precision ({whole.dtype}), and not as {scheme}")
    if there is None:
        raise _fault(f"{name} is gone")
    if there.dtype != dtype or there.shape != shape:
        raise _fault(
            f"{name} is stored as {there.dtype} {list(there.shape)}, and must be {dtype} {list(shape)} in {scheme}"
        )
    return there.size


def _name_there(name: str, after: Mapping[str, StoredTensor], *, quantized: bool) -> str:
    """The name in the result."""
    ends = (".weight", ".weight_packed") if quantized else ("",)
    for one in saved_names(name):
        stem = one.removesuffix(".weight") if quantized else one
        if any(f"{stem}{end}" in after for end in ends):
            return one
    return name


def _is_tied(name: str, before: Mapping[str, Any], result: Path) -> bool:
    """Whether it is a head that the result takes from its embeddings."""
    config = json.loads((result / "config.json").read_text(encoding="utf-8"))
    tensor = before[name][1]
    alike = [t for other, (kind, t) in before.items() if other != name and kind == "embedding"]
    return bool(config.get("tie_word_embeddings")) and any(t.shape == tensor.shape for t in alike)


def _prove_config(result: Path, scheme: Scheme, group: int | None) -> None:
    """What engines read of the scheme is what was asked for."""
    config = json.loads((result / "config.json").read_text(encoding="utf-8"))
    said = config.get("quantization_config")
    if not isinstance(said, dict) or said.get("quant_method") != "compressed-tensors":
        raise _fault(
            "config.json says nothing of compressed-tensors, so an engine would read numbers as weights"
        )
    groups = list(said.get("config_groups", {}).values())
    found = [
        (said.get("format"), _type(one.get("weights")), _type(one.get("input_activations"))) for one in groups
    ]
    if found != [SAID[scheme]]:
        raise _fault(f"config.json says {found}, and {scheme} is {[SAID[scheme]]}")
    size = groups[0]["weights"].get("group_size")
    if size != group:
        raise _fault(f"config.json says that {size} inputs share a scale, and {group or 'all'} of a row do")


def _type(arguments: Mapping[str, Any] | None) -> tuple[int, str] | None:
    return None if arguments is None else (arguments["num_bits"], arguments["type"])


def _fault(what: str) -> UserError:
    return UserError(
        f"pipeline.export: {what}. What was written is not what was asked for: export again, and if that does not "
        f"help, report the family of the model and the version of llmcompressor."
    )
