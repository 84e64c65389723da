"""Stores the linear modules of a model quantized, and looks at what was really stored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, TorchAoConfig

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.files import copy_tokenizer, forget_versions, weight_files
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.heads_body import auto_class, head_modules, head_of_folder
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quantization import QuantizationSettings
from tunemill.stages.models.quantization_body import quantized_linears, round_in_forward, storing_settings
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.models.quantized.stored import stored
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.ties_body import stored_twice_bytes
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.models.weights import sort_header, tensors_of_model
from tunemill.stages.report import Report, Workspace

# The first GPUs that compute with activations of the type.
CAPABILITIES = {"fp8": (8, 9), "nvfp4": (10, 0)}
# How far logits may be from those that a quantization-aware training had, as a share of the largest: the same products
# are computed with the same numbers, but for those of float types, which the GPU adds up in another order.
FORESEEN, FORESEEN_OF_FLOATS = 1e-3, 5e-2


@dataclass(frozen=True)
class Expected:
    """What storing must have done: names of the quantized tensors, their type, and bytes of all tensors."""

    quantized: frozenset[str]
    dtype: str
    size: int


def quantize(config: QuantizedConfig, model: Model, out: Workspace, report: Report) -> None:
    """Write the quantized model, reload it, and report its size and how far its logits moved.

    Raises SettingError where the settings do not fit a module or this machine, UserError for a model that is already
    quantized or has nothing to quantize.
    """
    be_quiet()
    settings, trained = config.chosen, config.qat is not None
    check_machine(settings)
    use_code_of(model.path)
    if hasattr(AutoConfig.from_pretrained(model.path), "quantization_config"):
        raise UserError("quantization: the model is quantized already. Start from one in full precision.")
    kind = auto_class(head_of_folder(model.path))
    plain = kind.from_pretrained(model.path, dtype="auto").eval()
    expected = _expected(plain, model.path, settings, trained=trained)
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = logits_of(plain, ids)
    check_finite("quantization", "the largest logit of the model", float(before.abs().max()), plain.dtype)
    foreseen = _foreseen(plain, settings, ids) if trained else None
    scoring = head_modules(plain)
    del plain
    asked = TorchAoConfig(storing_settings(settings, trained=trained), modules_to_not_convert=scoring or None)
    quantized = kind.from_pretrained(model.path, dtype="auto", quantization_config=asked)
    set_generation_aside(quantized)
    quantized.save_pretrained(out.data)
    forget_versions(out.data)
    del quantized
    for path in weight_files(out.data):
        sort_header(path)
    keep_generation(model.path, out.data)
    copy_tokenizer(model.path, out.data)
    check_same_tokenizer(model.path, out.data)
    size = _check_stored(out.data, expected)
    after = logits_of(kind.from_pretrained(out.data).eval(), ids)
    trained_for = {} if foreseen is None else {"max_abs_difference_to_training": _difference(after, foreseen)}
    allowed = FORESEEN_OF_FLOATS if settings.needs else FORESEEN
    for difference in trained_for.values():
        assert difference <= allowed * float(before.abs().max()), (
            f"not what was trained: logits are {difference} off"
        )
    report.summary(
        bytes_before=sum(tensor.size for tensor in tensors_of_model(model.path).values()),
        bytes_after=size,
        quantized_modules=len(expected.quantized),
        max_abs_logit_difference=_difference(after, before),
        max_abs_logit=float(before.abs().max()),
        **trained_for,
    )


def check_machine(settings: QuantizationSettings) -> None:
    """Raise SettingError where this machine cannot compute with activations of the type asked for."""
    needed = CAPABILITIES.get(settings.activation_dtype or "")
    if needed is None or (torch.cuda.is_available() and torch.cuda.get_device_capability() >= needed):
        return
    raise SettingError(
        f"activation_dtype: {settings.activation_dtype} needs {settings.needs}, and this machine has none. Quantize on "
        f"such a machine, or leave it out to quantize the weights alone."
    )


def _foreseen(plain: Any, settings: QuantizationSettings, ids: Tensor) -> Tensor:
    """Logits of the model that rounds as it did while it was trained."""
    round_in_forward(plain, settings)
    return logits_of(plain, ids)


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _expected(plain: Any, folder: Path, settings: QuantizationSettings, *, trained: bool) -> Expected:
    """Each linear module but the output head is stored in the type asked for, with its scales."""
    size = sum(tensor.size for tensor in tensors_of_model(folder).values()) - stored_twice_bytes(
        folder, plain
    )
    names, dtype = [], ""
    for name, module in quantized_linears(plain, settings):
        outputs, inputs = module.weight.shape
        itemsize = module.weight.element_size()
        dtype, taken = stored(settings, outputs, inputs, itemsize, trained=trained)
        size += taken - module.weight.numel() * itemsize
        names.append(f"{name}._weight_qdata")
    if not names:
        raise UserError(
            "quantization: the model has no linear module but its output head: nothing to quantize."
        )
    return Expected(frozenset(names), dtype, size)


def _check_stored(folder: Path, expected: Expected) -> int:
    """Bytes of all stored tensors, which are those expected; the quantized ones really have their type."""
    found = tensors_of_model(folder)
    quantized = {
        name
        for name, tensor in found.items()
        if tensor.dtype == expected.dtype and name.endswith("_weight_qdata")
    }
    assert quantized == expected.quantized, f"not quantized: {sorted(quantized ^ expected.quantized)[:3]}"
    size = sum(tensor.size for tensor in found.values())
    assert size == expected.size, f"{size} bytes stored, {expected.size} expected"
    return size
