"""Reading and ordering the headers of safetensors files without loading a tensor."""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.errors import SourceError
from tunemill.stages.models.files import INDEX_FILE, weight_files


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file. `start` and `size` are in bytes, `start` from the head of the file."""

    file: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        count = 1
        for length in self.shape:
            count *= length
        return count


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file and the byte at which its tensors start.

    Raises SourceError where the file is cut short or is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if 8 + length > size:
            raise SourceError(f"{path}: not a complete safetensors file ({size} bytes). Fetch it again.")
        header: dict[str, Any] = json.loads(file.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if 8 + length + max(ends, default=0) != size:
        raise SourceError(
            f"{path}: {size} bytes, but its header promises {8 + length + max(ends, default=0)}: the file is cut "
            f"short or damaged. Fetch it again."
        )
    return header, 8 + length


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """A header as it stands at the head of a safetensors file: its length, and itself, filled up to eight bytes."""
    encoded = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    encoded += b" " * (-len(encoded) % 8)
    return struct.pack("<Q", len(encoded)) + encoded


def tensors_of_file(path: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor in one file."""
    header, data_start = read_header(path)
    return {
        name: StoredTensor(
            file=path,
            name=name,
            dtype=entry["dtype"],
            shape=tuple(entry["shape"]),
            start=data_start + entry["data_offsets"][0],
            size=entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def tensors_of_model(folder: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor of a model folder, checked against its index where it has one.

    Raises SourceError where a file or a tensor that the index names is missing, or two files hold one name.
    """
    found: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        for name, tensor in tensors_of_file(path).items():
            if name in found:
                raise SourceError(f"{folder}: {name} is in {found[name].file.name} and again in {path.name}")
            found[name] = tensor
    index = folder / INDEX_FILE
    if index.is_file():
        _check_index(index, found)
    return found


def _check_index(index: Path, found: Mapping[str, StoredTensor]) -> None:
    for name, file_name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].items():
        if name not in found or found[name].file.name != file_name:
            raise SourceError(
                f"{index}: names {name} in {file_name}, but it is not there. The folder is incomplete: fetch it again."
            )


def sort_header(path: Path) -> None:
    """Rewrite a safetensors file with its header in a fixed order, so that equal contents are equal bytes.

    The library writes the metadata in the order of a hash map that differs from save to save, and torchao lists
    the parts of a quantized tensor in the order of a Python set.
    """
    header, data_start = read_header(path)
    metadata = header.pop("__metadata__", None)
    ordered = (
        {"__metadata__": {name: _sorted_names(metadata[name]) for name in sorted(metadata)}}
        if metadata
        else {}
    )
    ordered |= dict(sorted(header.items(), key=lambda item: item[1]["data_offsets"]))
    sorted_path = path.with_suffix(".sorted")
    with path.open("rb") as reader, sorted_path.open("wb") as writer:
        writer.write(header_bytes(ordered))
        reader.seek(data_start)
        while block := reader.read(1 << 20):
            writer.write(block)
    sorted_path.replace(path)


def _sorted_names(value: str) -> str:
    if not value.startswith('{"_type"'):
        return value
    entry = json.loads(value)
    if "_tensor_data_names" in entry:
        entry["_tensor_data_names"] = sorted(entry["_tensor_data_names"])
    return json.dumps(entry)
