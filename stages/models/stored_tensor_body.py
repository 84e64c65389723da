"""One tensor of a safetensors file as numbers. Files are read, not mapped: mapped pages count as used memory."""

from collections.abc import Iterator
from io import FileIO
from typing import Any

import numpy as np
import torch

from tunemill.stages.errors import SourceError
from tunemill.stages.models.weights import StoredTensor

# Types by their names in safetensors files.
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
}  # fmt: skip
# Bytes that are read or compared at a time, and of which the first differences are looked for.
BLOCK, FIRST = 1 << 21, 1 << 14


def read_tensor(place: StoredTensor) -> torch.Tensor:
    """The tensor, in the type that it is stored in. Raises SourceError for a file that ends before it."""
    raw = np.empty(place.size, dtype=np.uint8)
    with place.file.open("rb", buffering=0) as file:
        file.seek(place.start)
        _fill(file, raw, place)
    if place.dtype not in TYPES:
        raise SourceError(f"{place.file}: {place.name}: numbers of type {place.dtype} cannot be read here")
    dtype = TYPES[place.dtype]
    if place.size == 0:
        return torch.empty(place.shape, dtype=dtype)
    return torch.from_numpy(raw).view(dtype).reshape(place.shape)


def read_blocks(place: StoredTensor) -> Iterator[tuple[int, Any]]:
    """The tensor's numbers one after the other, some at a time: the number of the first, and they, in the type that
    they are stored in. They are in the same memory each time. Raises SourceError for a file that ends before."""
    dtype = TYPES[place.dtype]
    raw = np.empty(min(BLOCK, place.size), dtype=np.uint8)
    with place.file.open("rb", buffering=0) as file:
        file.seek(place.start)
        for start in range(0, place.size, BLOCK):
            part = raw[: min(BLOCK, place.size - start)]
            _fill(file, part, place)
            yield start // dtype.itemsize, torch.from_numpy(part).view(dtype)


def read_part(file: FileIO, place: StoredTensor, start: int, buffer: Any) -> None:
    """Fill bytes with those of the tensor from `start` on, out of its opened file. Raises SourceError as above."""
    file.seek(place.start + start)
    _fill(file, buffer, place)


def same_bytes(one: StoredTensor, other: StoredTensor) -> bool:
    """Whether two stored tensors have one type, one shape and the same bytes."""
    if (one.dtype, one.shape, one.size) != (other.dtype, other.shape, other.size):
        return False
    left = right = np.empty(0, dtype=np.uint8)
    with one.file.open("rb", buffering=0) as first, other.file.open("rb", buffering=0) as second:
        first.seek(one.start)
        second.seek(other.start)
        done = 0
        while done < one.size:
            count = min(BLOCK if done else FIRST, one.size - done)
            if len(left) != count:
                left, right = np.empty(count, dtype=np.uint8), np.empty(count, dtype=np.uint8)
            _fill(first, left, one)
            _fill(second, right, other)
            if not np.array_equal(left, right):
                return False
            done += count
    return True


def _fill(file: FileIO, buffer: Any, place: StoredTensor) -> None:
    view, done = memoryview(buffer), 0
    while done < len(view):
        count = file.readinto(view[done:])
        if not count:
            raise SourceError(f"{place.file}: ends within {place.name}. Fetch or save it again.")
        done += count
