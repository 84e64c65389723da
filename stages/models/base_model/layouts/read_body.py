"""Which folders hold weights in another way than transformers trains them, and what reads these."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.folder import quantized_by
from tunemill.stages.models.base_model.layouts import awq_body, gptq_body, nvfp4_body
from tunemill.stages.models.base_model.layouts.formats import AWQ, COMPRESSED, FAULTS, GPTQ, MODELOPT
from tunemill.stages.models.base_model.layouts.linearized_body import TextModel, settings_of_text
from tunemill.stages.models.base_model.layouts.packed_body import PackedWeights
from tunemill.stages.models.base_model.layouts.plain_body import write_plain
from tunemill.stages.models.linearized import KEY as LINEARIZED
from tunemill.stages.models.linearized import fault_of_type
from tunemill.stages.models.model_folder import settings_of
from tunemill.stages.report import Report


def as_plain(config: BaseModelConfig, folder: Path, target: Path, report: Report) -> Path:
    """The model's folder, or where it holds weights in another way, `target`, with these as plain numbers.

    Raises SettingError where a key says something else of the folder, SourceError where tensors are missing.
    """
    stored = settings_of(folder) or {}
    if config.llama4_linearized_experts and (reason := fault_of_type(stored.get("model_type"))):
        raise SettingError(f"{LINEARIZED}: {reason}.")
    if config.reinit_weights:
        return folder
    method = quantized_by(stored)
    if method is not None and method in FAULTS:
        packed = packed_weights(method, folder, stored)
        report.log(f"{packed.packed} modules are quantized ({method}): they are read as numbers in 16 bits")
        report.summary(unpacked_modules=packed.packed)
        settings = {key: value for key, value in stored.items() if key != "quantization_config"}
        write_plain(packed, settings, folder, target, report)
        return target
    return _as_llama4(folder, stored, target, report) if config.llama4_linearized_experts else folder


def packed_weights(method: str, folder: Path, stored: Mapping[str, Any]) -> PackedWeights:
    """The weights of a folder whose config.json `stored` says that they are quantized by `method`."""
    settings = stored["quantization_config"]
    named = stored.get("dtype") or stored.get("torch_dtype") or "bfloat16"
    dtype = getattr(torch, str(named).removeprefix("torch."))
    if method == GPTQ:
        unpack = partial(gptq_body.unpack_gptq, settings)
        return PackedWeights(
            folder, unpack, sign=gptq_body.SIGN, ends=gptq_body.ENDS, optional=gptq_body.OPTIONAL
        )
    if method == AWQ:
        return PackedWeights(folder, awq_body.unpack_awq, sign=awq_body.SIGN, ends=awq_body.ENDS)
    signs = {
        COMPRESSED: (nvfp4_body.unpack_compressed, nvfp4_body.COMPRESSED_SIGN, nvfp4_body.COMPRESSED_ENDS),
        MODELOPT: (nvfp4_body.unpack_modelopt, nvfp4_body.MODELOPT_SIGN, nvfp4_body.MODELOPT_ENDS),
    }
    function, sign, ends = signs[method]
    return PackedWeights(folder, partial(function, dtype), sign=sign, ends=ends, dropped=nvfp4_body.DROPPED)


def _as_llama4(folder: Path, stored: Mapping[str, Any], target: Path, report: Report) -> Path:
    model, sees = TextModel(folder), "text_config" in stored
    if not (model.is_linearized or sees):
        return folder
    if model.is_linearized:
        report.log("the experts are stored as linear modules; they are read as transformers stores them")
    if sees:
        report.log("of this model what reads text is taken, and what reads images is left out")
    write_plain(model, settings_of_text(stored), folder, target, report)
    return target
