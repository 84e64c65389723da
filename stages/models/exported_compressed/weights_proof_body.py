"""Proof by each number: what is stored is the model's weight, rounded. Read from the files' own bytes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tunemill.stages.errors import UserError
from tunemill.stages.models.exported_compressed.files_proof import Files
from tunemill.stages.models.exported_compressed.layout import SEARCHED, parts_of
from tunemill.stages.models.exports import Scheme, group_of
from tunemill.stages.models.linear_weights import saved_names
from tunemill.stages.models.rounding_body import allowed_error, steps
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

# Our name of the type that weights are rounded to, and the number that the largest of a group becomes.
TYPES = {"fp8-dynamic": "fp8", "w8a8": "int8", "w4a16": "int4", "nvfp4": "nvfp4"}
TOPS = {"fp8-dynamic": 448.0, "w8a8": 127.5, "w4a16": 7.5, "nvfp4": 6.0}
# How far a scale may be from that, as a share: it is rounded to bfloat16, in NVFP4 to float8.
SCALES = {"fp8-dynamic": 0.01, "w8a8": 0.01, "w4a16": 0.01, "nvfp4": 0.07}
# GPTQ moves numbers further than to the nearest, so that outputs move less: measured up to 1.8 times the error of
# rounding, in a row up to 2.2 times. Another row's numbers are 13 times as far.
MOST_ERROR = 6.0
# The numbers of a 4-bit float by their bits.
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
# The smallest normal number of float8: scales below are coarse.
LEAST_SCALE = 2.0**-6


def prove_weights(
    source: Path, result: Path, scheme: Scheme, group_size: int, files: Files
) -> dict[str, float]:
    """Every quantized weight is the source's within what rounding costs, and all else the same. Figures: the largest
    error in such bounds (up to 1), and the share of inputs that calibration has never seen in use.

    Raises UserError with the tensor and the row.
    """
    there = tensors_of_model(result)
    worst, unused, inputs = 0.0, 0, 0
    for module, tensor in files.quantized.items():
        weight = read(tensor)
        dtype = str(tensor.dtype)
        parts = {p: read(there[f"{module}.{p}"]) for p in parts_of(scheme, tensor.shape, dtype, group_size)}
        group = group_of(scheme, group_size)
        numbers, scales = decode(scheme, parts, tensor.shape)
        _check_scales(module, scheme, weight, scales, group, parts)
        spread = scales.repeat_interleave(numbers.shape[1] // scales.shape[1], 1)
        error, dead = _error(scheme, weight, numbers * spread, group)
        if float(error.max()) > 1:
            row = int(error.argmax())
            raise _fault(
                f"{module}: the stored numbers of row {row} are {float(error.max()):.3g} times as far from the model's "
                f"as rounding to {TYPES[scheme]} allows"
            )
        worst, unused, inputs = max(worst, float(error.max())), unused + dead, inputs + weight.shape[1]
    _check_rest(source, there, files)
    return {"largest_error_in_bounds": worst, "unused_inputs_share": unused / inputs}


def read(tensor: StoredTensor) -> Tensor:
    """The tensor, from its file."""
    with safe_open(tensor.file, framework="pt") as reader:
        found: Tensor = reader.get_tensor(tensor.name)
    return found


def decode(scheme: Scheme, parts: Mapping[str, Tensor], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of a stored weight the numbers [out, in] and their scales [out, in / group], in float32."""
    scales = parts["weight_scale"].float()
    if scheme in ("fp8-dynamic", "w8a8"):
        return parts["weight"].float(), scales
    packed = parts["weight_packed"]
    if scheme == "w4a16":
        # Eight numbers in an integer, the first in its lowest bits, each with 8 added.
        fields = (packed.unsqueeze(-1) >> torch.arange(0, 32, 4, dtype=torch.int32)) & 15
        return fields.flatten(1)[:, : shape[1]].float() - 8, scales
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1).long()
    return torch.tensor(E2M1)[codes], scales / parts["weight_global_scale"]


def _check_scales(
    module: str,
    scheme: Scheme,
    weight: Tensor,
    scales: Tensor,
    group: int | None,
    parts: Mapping[str, Tensor],
) -> None:
    """A scale takes the largest number of its row or group to the largest of the type."""
    values = weight.float()
    largest = values.reshape(values.shape[0], -1, group or values.shape[1]).abs().amax(-1)
    wanted = largest / TOPS[scheme]
    least = LEAST_SCALE / float(parts["weight_global_scale"]) if scheme == "nvfp4" else 1e-30
    off = ((scales - wanted).abs() / wanted.clamp(min=1e-38)).masked_fill(wanted < least, 0.0)
    worst = torch.nan_to_num(off, nan=float("inf"))
    if float(worst.max()) > SCALES[scheme]:
        row, column = divmod(int(worst.argmax()), worst.shape[1])
        raise _fault(
            f"{module}: the scale of row {row}, group {column} is {float(scales[row, column]):.4g}, and that of the "
            f"model's numbers there is {float(wanted[row, column]):.4g}"
        )


def _error(scheme: Scheme, weight: Tensor, stored: Tensor, group: int | None) -> tuple[Tensor, int]:
    """[out] the largest error of each row in what is allowed, and how many inputs were taken for unused."""
    values = weight.float()
    if scheme not in SEARCHED:
        share = (stored - values).abs() / allowed_error(weight, TYPES[scheme], group).clamp(min=1e-30)
        return torch.nan_to_num(share, nan=float("inf")).amax(-1), 0
    # GPTQ drops the weights of an input that was 0 in all rows.
    used = (stored != 0).any(0) | (values == 0).all(0)
    step = steps(values, TYPES[scheme], group)[:, used]
    by_chance = step.square().mean(-1).sqrt() / 12**0.5
    error = (stored - values)[:, used].square().mean(-1).sqrt()
    share = error / (MOST_ERROR * by_chance).clamp(min=1e-30)
    return torch.nan_to_num(share, nan=float("inf")), int((~used).sum())


def _check_rest(source: Path, there: Mapping[str, StoredTensor], files: Files) -> None:
    """What is not quantized has the same numbers."""
    quantized = {tensor.name for tensor in files.quantized.values()}
    for name, tensor in tensors_of_model(source).items():
        found = next((there[one] for one in saved_names(name) if one in there), None)
        if name in quantized or found is None:
            continue
        before, after = read(tensor), read(found)
        if not torch.equal(before.to(after.dtype), after):
            rows = (before.to(after.dtype) != after).reshape(after.shape[0], -1).any(-1).nonzero()
            raise _fault(
                f"{found.name} is not quantized, and {len(rows)} of its {after.shape[0]} rows are others"
            )


def _fault(what: str) -> UserError:
    return UserError(
        f"pipeline.export: {what}. The folder is not the model that was exported: export again, and leave its files "
        f"as they are."
    )
