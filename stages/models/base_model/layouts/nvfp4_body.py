"""Weights in NVFP4: numbers of 4 bits, 16 of which share a scale in 8 bits, under one scale for the whole weight.

Of a module with `in` inputs and `out` outputs: codes [out, in / 2] of uint8, the first in the low half, scales [out,
in / 16] of float8 (e4m3), and the scale of all. ModelOpt multiplies by that one, compressed-tensors divides by it.
"""

from collections.abc import Mapping
from typing import Any

import torch

# The sixteen numbers, by their codes: sign, two bits of exponent, one of mantissa.
VALUES = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
BLOCK = 16
COMPRESSED_SIGN = ".weight_packed"
COMPRESSED_ENDS = (".weight_packed", ".weight_scale", ".weight_global_scale")
MODELOPT_SIGN, MODELOPT_ENDS = ".weight_scale_2", (".weight", ".weight_scale", ".weight_scale_2")
# Scales of what is computed, and of what is kept of it.
DROPPED = (".input_scale", ".input_global_scale", ".k_scale", ".v_scale")


def unpack_compressed(dtype: torch.dtype, tensors: Mapping[str, Any]) -> Any:
    """The weight [out, in] as compressed-tensors stores it."""
    codes, scales, scale = (tensors[end] for end in COMPRESSED_ENDS)
    return unpack_nvfp4(codes, scales.float() / scale.float().reshape(())).to(dtype)


def unpack_modelopt(dtype: torch.dtype, tensors: Mapping[str, Any]) -> Any:
    """The weight [out, in] as ModelOpt stores it."""
    codes, scales, scale = (tensors[end] for end in MODELOPT_ENDS)
    return unpack_nvfp4(codes, scales.float() * scale.float().reshape(())).to(dtype)


def unpack_nvfp4(codes: Any, scales: Any) -> Any:
    """The numbers [out, in] in float32 of codes [out, in / 2] and scales [out, in / 16]."""
    values = VALUES[torch.stack((codes & 15, codes >> 4), dim=-1).long().flatten(-2)]
    return (values.unflatten(-1, (-1, BLOCK)) * scales.unsqueeze(-1)).flatten(-2)
