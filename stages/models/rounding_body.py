"""How far apart the numbers of a format lie, by its definition: what rounding to it may cost, whoever rounds."""

import torch
from torch import Tensor

# Of float types: the largest number, bits behind the point, and the exponent below which numbers get no closer.
FLOATS = {"fp8": (448.0, 3, -6), "nvfp4": (6.0, 1, 0), "mxfp4": (6.0, 1, 0)}
BITS = {"int8": 8, "int4": 4}
# How much farther than half a step a stored number may be from the one it stands for: scales are rounded too. Of MXFP4
# a scale is a power of two, and up to a quarter of a number is cut off.
SLACK = {"int8": 1.05, "int4": 1.05, "fp8": 1.1, "nvfp4": 1.2, "mxfp4": 2.1}
# Below this share of a tensor's largest number NVFP4 has no scale: its scales are float8 numbers themselves.
TINY = 1e-5


def steps(tensor: Tensor, dtype: str, group: int | None) -> Tensor:
    """Of each number (in float32) the distance between the two of the format around it, where `group` numbers of the
    last dimension share a scale; None: all of it."""
    values = tensor.float()
    blocks = values.reshape(*values.shape[:-1], -1, group or values.shape[-1])
    largest = blocks.abs().amax(-1, keepdim=True)
    if dtype in BITS:
        found = (largest / (2 ** (BITS[dtype] - 1) - 1)).expand_as(blocks)
        return found.reshape(values.shape)
    top, bits, least = FLOATS[dtype]
    scale = largest / top
    if dtype == "mxfp4":
        scale = torch.exp2(torch.floor(torch.log2(largest.clamp(min=1e-38))) - 2)
    # A little above the number, so that one that is rounded up to the next power of two counts as one beyond.
    exponent = torch.floor(torch.log2((1.07 * blocks.abs() / scale.clamp(min=1e-38)).clamp(min=2.0**least)))
    return (torch.exp2(exponent - bits) * scale).reshape(values.shape)


def allowed_error(weight: Tensor, dtype: str, group: int | None) -> Tensor:
    """Of each number of a weight, how far what is stored may be from it: half a step, and the rounding of its type."""
    # Division, scale, and product are each rounded to the weight's type.
    of_type = 2 * weight.float().abs() * torch.finfo(weight.dtype).eps
    tiny = TINY * weight.float().abs().max() if dtype == "nvfp4" else 0.0
    half = steps(weight, dtype, group) / 2
    return SLACK[dtype] * half + of_type + tiny


def noise(tensor: Tensor, dtype: str, group: int | None, generator: torch.Generator) -> Tensor:
    """What rounding does to a tensor, if where numbers lie between two of the format is chance: as a tensor to add."""
    random = torch.rand(tensor.shape, generator=generator, dtype=torch.float32) - 0.5
    return (random.to(tensor.device) * steps(tensor, dtype, group)).to(tensor.dtype)
