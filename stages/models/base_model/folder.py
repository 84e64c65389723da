"""Whether a folder is one of a model that can be trained, going by its files and its config.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.models.base_model.layouts.formats import FAULTS, GPTQ
from tunemill.stages.models.heads import AUTO_CLASSES
from tunemill.stages.models.model_folder import fault_of_json
from tunemill.stages.models.own_code import AUTO

BITSANDBYTES = "bitsandbytes"
# How weights are quantized -> the class of transformers that reads them as numbers.
UNPACKED_BY = {"mxfp4": "Mxfp4Config", "fp8": "FineGrainedFP8Config"}


def fault_of_settings(
    folder: Path, stored: Mapping[str, Any] | None, unpacked_by: str | None = None
) -> str | None:
    """What in the config.json stands in the way. `unpacked_by`: the class that is to read quantized weights."""
    if stored is None:
        return fault_of_json(folder / "config.json")
    method = quantized_by(stored)
    if method in UNPACKED_BY:
        if unpacked_by == UNPACKED_BY[method]:
            return None
        return (
            f"{folder}: already quantized, by {method}. To read it as numbers in 16 bits set "
            f"model_quantization_config: {UNPACKED_BY[method]} and model_quantization_config_kwargs: "
            f"{{dequantize: true}}"
        )
    if method is not None and method in FAULTS:
        reason = FAULTS[method](stored["quantization_config"])
        instead = "Start from the model in full precision, or another quantization of it"
        return None if reason is None else f"{folder}: already quantized, by {method}: {reason}. {instead}"
    if method is not None and method != BITSANDBYTES:
        return (
            f"{folder}: already quantized, by {method}, and of quantized models an adapter is trained on those of "
            f"{BITSANDBYTES} only. Start from the model in full precision, with load_in_4bit: true to "
            f"save memory"
        )
    return None


def fault_of_description(folder: Path, stored: Mapping[str, Any] | None) -> str | None:
    """What stands in the way in a config.json that is read in place of the model's own."""
    method = None if stored is None else quantized_by(stored)
    if method is None:
        return fault_of_settings(folder, stored)
    return (
        f"{folder}: its config.json says that weights are quantized, by {method}, and it is read beside plain numbers. "
        f"Take base_model_config out, or take quantization_config out of that file"
    )


def fault_of_gptq_key(folder: Path, stored: Mapping[str, Any], asked: bool) -> str | None:
    """Where the key `gptq` and the folder do not say the same."""
    method = quantized_by(stored)
    if asked and method != GPTQ:
        return f"true, but the weights of {folder} are not quantized by GPTQ. Take it out"
    if method == GPTQ and not asked:
        return (
            f"{folder}: its weights are quantized by GPTQ. Set gptq: true to read them as numbers in 16 bits"
        )
    return None


def quantized_by(stored: Mapping[str, Any]) -> str | None:
    """How the weights are quantized; None where they are not."""
    if "quantization_config" not in stored:
        return None
    settings = stored["quantization_config"]
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    named = isinstance(settings, Mapping) and (settings.get("load_in_4bit") or settings.get("load_in_8bit"))
    return BITSANDBYTES if named else str(method or "an unknown method")


def fault_of_class(stored: Mapping[str, Any], wanted: str | None) -> str | None:
    """Whether another class is asked for than the config.json names, or one with a head that training draws."""
    named = stored.get("architectures") or []
    if wanted in (None, AUTO, *AUTO_CLASSES, *named):
        return None
    return (
        f"{wanted}: the config.json of this model names {', '.join(map(str, named)) or 'no class'}. Set that, or "
        f"{AUTO}, or remove the key"
    )
