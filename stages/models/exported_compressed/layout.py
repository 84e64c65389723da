"""What compressed-tensors stores for the weight of a linear layer: names, types and shapes, by its formats alone."""

from tunemill.stages.models.exports import NVFP4_GROUP, Scheme

# Schemes whose numbers GPTQ looks for; those of others are rounded to the nearest.
SEARCHED: tuple[Scheme, ...] = ("w4a16", "w8a8")
# Numbers of 4 bits in an integer of 32, and in a byte.
IN_WORD, IN_BYTE = 8, 2

Parts = dict[str, tuple[str, tuple[int, ...]]]


def parts_of(scheme: Scheme, shape: tuple[int, ...], dtype: str, group_size: int) -> Parts:
    """Ending of the name -> type and shape, of a weight [out, in] of a model in `dtype`, as safetensors names types."""
    out, inputs = shape
    if scheme in ("fp8-dynamic", "w8a8"):
        numbers = "I8" if scheme == "w8a8" else "F8_E4M3"
        return {"weight": (numbers, (out, inputs)), "weight_scale": (dtype, (out, 1))}
    if scheme == "w4a16":
        return {
            "weight_packed": ("I32", (out, -(-inputs // IN_WORD))),
            "weight_scale": (dtype, (out, inputs // group_size)),
            "weight_shape": ("I64", (2,)),
        }
    return {
        "weight_packed": ("U8", (out, inputs // IN_BYTE)),
        "weight_scale": ("F8_E4M3", (out, inputs // NVFP4_GROUP)),
        "weight_global_scale": ("F32", (1,)),
        "input_global_scale": ("F32", (1,)),
    }
