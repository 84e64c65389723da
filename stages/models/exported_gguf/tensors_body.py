"""Which tensors of a model go into a GGUF file, under which names, in which order and types; and their bytes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_gguf.values_body import rotation_tensors
from tunemill.stages.models.gguf_families import Family
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

Type = gguf.GGMLQuantizationType
PLAIN = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "mxfp4")
TYPES: Mapping[str, Type] = {name: Type.__members__[name.upper()] for name in PLAIN}
WIDE = (Type.F32, Type.F16, Type.BF16)
HEAD, EMBEDDINGS = "output.weight", "token_embd.weight"
NUMBERS: dict[str, Any] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}
# So many numbers are converted at once.
AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Planned:
    """One tensor of the file. `heads`: its rows are turned in so many parts. `plus` is added to each number, `times`
    multiplies it.
    """

    name: str
    type: Type
    shape: tuple[int, ...]
    source: StoredTensor | None = None
    values: Any = None
    heads: int | None = None
    plus: float = 0.0
    times: float = 1.0

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        block, size = gguf.GGML_QUANT_SIZES[self.type]
        return int(np.prod(self.shape, dtype=np.int64)) // block * size


def plan(folder: Path, stored: Mapping[str, Any], family: Family, file_type: str) -> list[Planned]:
    """All tensors, in an order that does not depend on the files of the model. Raises UserError for a strange one."""
    tensors = tensors_of_model(folder)
    one_head = family.one_head or bool(stored.get("tie_word_embeddings")) or "lm_head.weight" not in tensors
    found = [
        Planned(name, Type.F32, values.shape, values=values)
        for name, values in rotation_tensors(stored).items()
    ]
    for name, tensor in tensors.items():
        if name == "lm_head.weight" and one_head:
            continue
        new = name_in_file(name, stored, family)
        if tensor.dtype not in NUMBERS:
            raise UserError(f"pipeline.export: {name} is stored as {tensor.dtype}. Take gguf out of export.")
        head = EMBEDDINGS if one_head else HEAD
        plus = 1.0 if family.plus_one and name.endswith("norm.weight") else 0.0
        kind = _type_of(tensor.shape, TYPES[file_type], is_head=new == head)
        heads = turned_heads(name, stored, family)
        found.append(Planned(new, kind, tensor.shape, source=tensor, heads=heads, plus=plus))
    return sorted(found, key=lambda tensor: place_of(tensor.name))


def name_in_file(name: str, stored: Mapping[str, Any], family: Family) -> str:
    """What llama.cpp calls a parameter. Raises UserError for one that it has not."""
    arch = next(arch for arch, called in gguf.MODEL_ARCH_NAMES.items() if called == family.name)
    names = gguf.get_tensor_name_map(arch, stored["num_hidden_layers"])
    found: str | None = names.get_name(name, try_suffixes=(".weight", ".bias"))
    if found is None:
        raise UserError(
            f"pipeline.export: llama.cpp has no tensor for {name} in a {family.name}. Take gguf out of export."
        )
    return found


def turned_heads(name: str, stored: Mapping[str, Any], family: Family) -> int | None:
    """In how many parts the rows of a parameter are turned; None of one that stays."""
    found = re.search(r"\.([qk])_proj\.", name) if family.turned else None
    if found is None:
        return None
    of_keys = stored.get("num_key_value_heads")
    return int(of_keys if found[1] == "k" and of_keys else stored["num_attention_heads"])


def place_of(name: str) -> tuple[int, int, str]:
    """Where a tensor stands: what is of no layer first, then layer by layer."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return (0, 0, name) if layer is None else (1, int(layer[1]), name)


def _type_of(shape: tuple[int, ...], asked: Type, *, is_head: bool) -> Type:
    """Vectors stay exact. Of fewer bits than 8 the output head gets 8, since every logit goes through it."""
    if len(shape) < 2:
        return Type.F32
    if asked in WIDE:
        return asked
    block, _ = gguf.GGML_QUANT_SIZES[asked]
    if shape[-1] % block:
        return Type.F16
    return Type.Q8_0 if is_head else asked


def pieces(tensor: Planned) -> Iterator[bytes]:
    """The bytes of a tensor, a few rows at a time. Raises UserError for what 16 bits cannot hold."""
    if tensor.source is None:
        yield tensor.values.astype("<f4").tobytes()
        return
    width = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    rows = int(np.prod(tensor.shape, dtype=np.int64)) // width
    order = np.arange(rows)
    if tensor.heads is not None:
        order = order.reshape(tensor.heads, 2, -1).swapaxes(1, 2).reshape(-1)
    step = max(1, AT_ONCE // width)
    for start in range(0, rows, step):
        numbers = read_rows(tensor.source, (rows, width), order[start : start + step])
        numbers = numbers * np.float32(tensor.times) + np.float32(tensor.plus)
        if tensor.type == Type.F16 and np.abs(numbers).max(initial=0.0) > np.finfo(np.float16).max:
            raise UserError(
                f"pipeline.export: {tensor.name} has numbers beyond 65504, the largest of f16. Use type: bf16, or q8_0."
            )
        # A vector is one row there, and a column here.
        shaped = numbers if len(tensor.shape) > 1 else numbers.reshape(1, -1)
        yield gguf.quants.quantize(np.ascontiguousarray(shaped), tensor.type).tobytes()


def read_rows(tensor: StoredTensor, shape: tuple[int, int], rows: Any) -> Any:
    """[R, W] float32: some rows of a stored tensor, seen as of `shape`."""
    kind = NUMBERS[tensor.dtype]
    mapped = np.memmap(tensor.file, kind, mode="r", offset=tensor.start, shape=shape)
    taken = mapped[rows]
    if tensor.dtype == "BF16":
        return (taken.astype(np.uint32) << 16).view(np.float32)
    return taken.astype(np.float32)
