"""What the files of a quantized model must hold, from the sizes of its weights alone: types and bytes."""

from math import ceil
from typing import NamedTuple

from tunemill.stages.models.quantization import QuantizationSettings


class Stored(NamedTuple):
    """Type of the numbers that stand for a weight, as safetensors names it, and bytes of all that does."""

    dtype: str
    size: int


def stored(
    settings: QuantizationSettings, outputs: int, inputs: int, itemsize: int, *, trained: bool
) -> Stored:
    """A weight of `outputs` rows, of a model whose numbers have `itemsize` bytes.

    `trained`: stored as `qat` trained for. Formats: torchao 0.18.
    """
    weights = outputs * inputs
    scales = outputs * (inputs // (settings.group or inputs))
    if settings.weight_dtype == "fp8":
        return Stored("F8_E4M3", weights + 4 * outputs)
    if settings.weight_dtype == "nvfp4":
        # Two weights in a byte. Scales are of one byte, in blocks of 128 rows and 4 columns, which are filled up.
        return Stored("U8", weights // 2 + 128 * ceil(outputs / 128) * 4 * ceil(inputs / 16 / 4) + 4)
    plain = settings.weight_dtype == "int8" and settings.activation_dtype is None and not trained
    # Integers take a byte each, also those of 4 bits; with each scale goes a zero point of one byte.
    return Stored("I8", weights + scales * ((4 if plain else itemsize) + 1))
