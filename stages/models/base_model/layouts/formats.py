"""Formats of quantized weights that are read as numbers in 16 bits, and what of each is read, by config.json alone."""

from collections.abc import Callable, Mapping
from typing import Any

GPTQ, AWQ, COMPRESSED, MODELOPT = "gptq", "awq", "compressed-tensors", "modelopt"
# What a GPTQ folder says of its zero points: stored less one, or as they are.
ZEROS_LESS_ONE, ZEROS_AS_THEY_ARE = "gptq", "gptq_v2"
GPTQ_BITS, AWQ_BITS = (2, 3, 4, 8), (4,)
NVFP4_FORMAT, NVFP4_ALGORITHM = "nvfp4-pack-quantized", "NVFP4"


def fault_of_gptq(settings: Mapping[str, Any]) -> str | None:
    """Bits and layouts that are not read."""
    layout = "marlin" if settings.get("is_marlin_format") else settings.get("checkpoint_format") or GPTQ
    if layout not in (ZEROS_LESS_ONE, ZEROS_AS_THEY_ARE):
        return f"checkpoint_format {layout}, and only {ZEROS_LESS_ONE} and {ZEROS_AS_THEY_ARE} are read"
    if settings.get("bits") not in GPTQ_BITS:
        return f"bits {settings.get('bits')}, and only {', '.join(map(str, GPTQ_BITS))} are read"
    if settings.get("pack_dtype", "int32") != "int32":
        return f"pack_dtype {settings['pack_dtype']}, and only int32 is read"
    if settings.get("dynamic"):
        return "dynamic: modules of other bits than the rest, which are not read"
    return None


def fault_of_awq(settings: Mapping[str, Any]) -> str | None:
    """Versions that are packed in another order."""
    version = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if version != "gemm":
        return f"version {version}, and only gemm is read"
    if settings.get("backend", "autoawq") != "autoawq":
        return f"backend {settings['backend']}, and only the order of autoawq is read"
    bits = settings.get("bits", settings.get("w_bit", 4))
    if bits not in AWQ_BITS:
        return f"bits {bits}, and only 4 are read"
    if settings.get("zero_point", True) is not True:
        return "zero_point: false, and only weights with zero points are read"
    return None


def fault_of_compressed(settings: Mapping[str, Any]) -> str | None:
    """Formats of compressed-tensors but NVFP4."""
    found = settings.get("format")
    return None if found == NVFP4_FORMAT else f"format {found}, and only {NVFP4_FORMAT} is read"


def fault_of_modelopt(settings: Mapping[str, Any]) -> str | None:
    """Algorithms of ModelOpt but NVFP4."""
    found = settings.get("quant_algo")
    return None if found == NVFP4_ALGORITHM else f"quant_algo {found}, and only {NVFP4_ALGORITHM} is read"


# quant_method -> what of it is not read.
FAULTS: Mapping[str, Callable[[Mapping[str, Any]], str | None]] = {
    GPTQ: fault_of_gptq,
    AWQ: fault_of_awq,
    COMPRESSED: fault_of_compressed,
    MODELOPT: fault_of_modelopt,
}
