"""LoftQ: the weights below an adapter are rounded, and its factors begin with what rounding took from them."""

from dataclasses import dataclass
from typing import Any

import torch

from tunemill.stages.models.rounded_body import through_bits
from tunemill.stages.report import Report
from tunemill.stages.training.adapters.factors_body import NAME, adapted_layers, weight_of
from tunemill.stages.training.adapters.starts_body import check_linear


@dataclass(frozen=True)
class Rounding:
    """How the base was rounded: through how many bits, in how many modules, and the share of what that took from their
    weights (in squares) that the first factors do not give back."""

    bits: int
    modules: int
    left: float


def start_from_rounding(model: Any, bits: int) -> Rounding:
    """Round each weight below a fresh adapter, and set the factors so that scale * B A is nearest to what is lost.

    Source: LoftQ (arXiv 2310.08659), with one iteration, as in PEFT; there the product is not divided by the scale,
    and fits where lora_alpha is lora_r alone.
    Raises SettingError for modules that are not linear, are quantized, or share their weight.
    """
    check_linear(model, "loftq")
    lost = left = 0.0
    layers = list(adapted_layers(model))
    with torch.no_grad():
        for _, layer in layers:
            weight = weight_of(layer)
            rounded = through_bits(weight.data, bits)
            rest = _outputs_first(layer, weight.data.float() - rounded.float())
            weight.data = rounded
            lost += float(rest.square().sum())
            left += _set_factors(layer, rest)
    return Rounding(bits, len(layers), left / lost if lost else 0.0)


def tell_rounding(rounding: Rounding, report: Report) -> None:
    """Say which base the adapter belongs to, and how much of what rounding took its first factors gave back."""
    report.log(
        f"loftq: the weights of {rounding.modules} modules were rounded through {rounding.bits} bits, and the adapter "
        f"belongs to these: beside the weights as they were it computes something else. Its first factors left "
        f"{rounding.left:.0%} of the squared rounding error"
    )
    report.summary(loftq_bits=rounding.bits, loftq_modules=rounding.modules, loftq_error_left=rounding.left)


def _set_factors(layer: Any, rest: Any) -> float:
    """Give the factors the largest singular values of [out, in] `rest`. Returns the sum of the others' squares."""
    device = "cuda" if torch.cuda.is_available() else rest.device
    left, values, right = torch.linalg.svd(rest.to(device), full_matrices=False)
    rank = layer.r[NAME]
    roots = (values[:rank] / layer.scaling[NAME]).sqrt()
    a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    # Of fewer values than the rank, the rows and columns that are left add nothing.
    a.zero_()
    b.zero_()
    a[: len(roots)] = (roots[:, None] * right[:rank]).to(a)
    b[:, : len(roots)] = (left[:, :rank] * roots).to(b)
    return float(values[rank:].square().sum())


def _outputs_first(layer: Any, tensor: Any) -> Any:
    return tensor.T if getattr(layer, "fan_in_fan_out", False) else tensor
