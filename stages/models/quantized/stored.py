"""What the files of a quantized model must hold, from the sizes of its weights alone: types and bytes."""

from math import ceil
from typing import NamedTuple

from tunemill.stages.models.linear_weights import Kind
from tunemill.stages.models.quantization import QuantizationSettings


class Stored(NamedTuple):
    """Type of the numbers that stand for a weight, as safetensors names it, and bytes of all that does."""

    dtype: str
    size: int


def stored(
    settings: QuantizationSettings,
    rows: int,
    inputs: int,
    itemsize: int,
    *,
    trained: bool,
    of: Kind = "linear",
) -> Stored:
    """A weight of that many rows, of a model whose numbers have `itemsize` bytes.

    `trained`: stored as `qat` trained for. `of`: "linear", "experts" (all rows of all of them) or "embedding". Formats:
    torchao 0.18.
    """
    weights = rows * inputs
    scales = rows * (inputs // (settings.group or inputs))
    if settings.weight_dtype == "fp8":
        return Stored("F8_E4M3", weights + 4 * rows)
    if settings.weight_dtype in ("nvfp4", "mxfp4"):
        # Two weights in a byte. Scales are of one byte, in blocks of 128 rows and 4 columns, which are filled up.
        blocks = 128 * ceil(rows / 128) * 4 * ceil(inputs / (settings.group or inputs) / 4)
        return Stored("U8", weights // 2 + blocks + (4 if settings.weight_dtype == "nvfp4" else 0))
    alone = settings.weight_dtype == "int8" and not trained
    plain = alone and (settings.activation_dtype is None or of != "linear")
    # Integers take a byte each, also those of 4 bits; with each scale goes a zero point of one byte.
    return Stored("I8", weights + scales * ((4 if plain else itemsize) + 1))
