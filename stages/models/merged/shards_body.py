"""Safetensors files laid out as others, whose tensors are written one by one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.models.weights import StoredTensor, header_bytes, read_header


@dataclass(frozen=True)
class Shard:
    """An open file; its tensors lie `shift` bytes behind where they lie in the file that it is laid out as."""

    number: int
    shift: int

    def write(self, place: StoredTensor, tensor: Any) -> None:
        """Write the tensor that lies at `place` in the other file."""
        size = tensor.numel() * tensor.element_size()
        assert size == place.size, f"{place.name}: {size} bytes in place of {place.size}"
        self.write_part(place, 0, tensor)

    def write_part(self, place: StoredTensor, start: int, numbers: Any) -> None:
        """Write what of it begins so many bytes behind its first."""
        data = memoryview(numbers.contiguous().view(-1).view(torch.uint8).numpy())
        written = place.start + self.shift + start
        while len(data):
            count = os.pwrite(self.number, data, written)
            data, written = data[count:], written + count


@contextmanager
def laid_out_as(source: Path, target: Path, extra: StoredTensor | None) -> Iterator[Shard]:
    """A file with the tensors of `source` by name, type and place, none written yet, and `extra` behind them."""
    header, start = read_header(source)
    with source.open("rb") as reader:
        head = reader.read(start)
    if extra is not None:
        offsets = [extra.start - start, extra.start - start + extra.size]
        entry = {"dtype": extra.dtype, "shape": list(extra.shape), "data_offsets": offsets}
        head = header_bytes({**header, extra.name: entry})
    shift = len(head) - start
    with target.open("wb") as writer:
        writer.write(head)
        size = source.stat().st_size + shift + (0 if extra is None else extra.size)
        writer.truncate(size)
        writer.flush()
        yield Shard(writer.fileno(), shift)


def add_to_index(index: Path, extra: StoredTensor) -> None:
    """Name a tensor in the index of a model folder, where it has one."""
    if not index.is_file():
        return
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"][extra.name] = extra.file.name
    if "total_size" in content.get("metadata", {}):
        content["metadata"]["total_size"] += extra.size
    index.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
