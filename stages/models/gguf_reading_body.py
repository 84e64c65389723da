"""Reads a GGUF file by the format's own rules: what it says, and the numbers behind its blocks.

Format: docs/gguf.md and ggml-common.h of ggml. Nothing here is shared with what writes the files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# Values that the codes of mxfp4 stand for (OCP Microscaling v1.0, E2M1).
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
# Bytes of a block of 32 numbers.
BLOCKS = {"Q8_0": 34, "Q5_1": 24, "Q5_0": 22, "Q4_1": 20, "Q4_0": 18, "MXFP4": 17}


@dataclass(frozen=True)
class GgufFile:
    """`says`: the values of the head. `tensors`: name to what the reader of the package gguf finds."""

    path: Path
    says: Mapping[str, Any]
    tensors: Mapping[str, Any]

    def kind(self, name: str) -> str:
        """The type that a tensor is stored in, such as Q8_0."""
        return str(self.tensors[name].tensor_type.name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Rows first."""
        return tuple(int(length) for length in reversed(self.tensors[name].shape))

    def numbers(self, name: str) -> Any:
        """float32, in the tensor's shape."""
        raw = np.ascontiguousarray(self.tensors[name].data).view(np.uint8).reshape(-1)
        return decoded(raw, self.kind(name)).reshape(self.shape(name))


def read_file(path: Path) -> GgufFile:
    """What a file holds; its tensors stay on the disk until they are asked for."""
    reader = gguf.GGUFReader(path)
    says = {name: field.contents() for name, field in reader.fields.items()}
    return GgufFile(path, says, {tensor.name: tensor for tensor in reader.tensors})


def decoded(raw: Any, kind: str) -> Any:
    """[N] float32: the numbers behind bytes [B]."""
    if kind == "F32":
        return raw.view("<f4")
    if kind == "F16":
        return raw.view("<f2").astype(np.float32)
    if kind == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if kind not in BLOCKS:
        # Types with a k, which another program has written.
        found = gguf.dequantize(raw, gguf.GGMLQuantizationType[kind])
        return np.asarray(found, np.float32).reshape(-1)
    blocks = raw.reshape(-1, BLOCKS[kind])
    if kind == "MXFP4":
        scale = np.ldexp(np.float32(1), blocks[:, :1].astype(np.int32) - 127)
        return (FP4[_halves(blocks[:, 1:])] * scale).astype(np.float32).reshape(-1)
    scale = _half(blocks, 0)
    if kind == "Q8_0":
        return (blocks[:, 2:].view(np.int8) * scale).reshape(-1)
    if kind == "Q4_0":
        return ((_halves(blocks[:, 2:]) - 8) * scale).reshape(-1)
    if kind == "Q4_1":
        return (_halves(blocks[:, 4:]) * scale + _half(blocks, 2)).reshape(-1)
    at = 4 if kind == "Q5_1" else 2
    fifth = np.unpackbits(blocks[:, at : at + 4], axis=1, bitorder="little").astype(np.int32)
    codes = _halves(blocks[:, at + 4 :]) + 16 * fifth
    return (codes * scale + _half(blocks, 2) if kind == "Q5_1" else (codes - 16) * scale).reshape(-1)


def _half(blocks: Any, at: int) -> Any:
    """[N, 1]: the 16-bit number that stands there in each block."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _halves(codes: Any) -> Any:
    """[N, 32] of [N, 16] bytes: the lower halves of all, then the upper ones."""
    return np.concatenate([codes & 15, codes >> 4], axis=1).astype(np.int32)
