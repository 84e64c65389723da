"""Stores the linear modules of a model in int8, and looks at what was really stored."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchao.quantization import Int8WeightOnlyConfig, PerGroup, PerRow
from transformers import AutoConfig, AutoModelForCausalLM, TorchAoConfig

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.files import copy_tokenizer, forget_versions, weight_files
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.ties_body import stored_twice_bytes
from tunemill.stages.models.tokenizer_ids_body import check_same_tokenizer
from tunemill.stages.models.weights import sort_header, tensors_of_model
from tunemill.stages.report import Report, Workspace

# torchao keeps scales in float32, whatever the model's type.
SCALE_BYTES = 4


@dataclass(frozen=True)
class Expected:
    """What storing must have done: names of the int8 tensors, and bytes of all tensors."""

    quantized: frozenset[str]
    size: int


def quantize(config: QuantizedConfig, model: Model, out: Workspace, report: Report) -> None:
    """Write the quantized model, reload it, and report its size and how far its logits moved.

    Raises SettingError where group_size does not divide a module's inputs, UserError for a model that is already
    quantized or has nothing to quantize.
    """
    be_quiet()
    use_code_of(model.path)
    if hasattr(AutoConfig.from_pretrained(model.path), "quantization_config"):
        raise UserError("quantization: the model is quantized already. Start from one in full precision.")
    group_size = config.quantization.group_size
    plain = AutoModelForCausalLM.from_pretrained(model.path, dtype="auto").eval()
    expected = _expected(plain, model.path, group_size)
    ids = fixed_tokens(plain.config.get_text_config().vocab_size)
    before = logits_of(plain, ids)
    del plain
    granularity = PerRow() if group_size is None else PerGroup(group_size)
    settings = TorchAoConfig(Int8WeightOnlyConfig(granularity=granularity))
    quantized = AutoModelForCausalLM.from_pretrained(model.path, dtype="auto", quantization_config=settings)
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
    after = logits_of(AutoModelForCausalLM.from_pretrained(out.data).eval(), ids)
    report.summary(
        bytes_before=sum(tensor.size for tensor in tensors_of_model(model.path).values()),
        bytes_after=size,
        quantized_modules=len(expected.quantized),
        max_abs_logit_difference=float((after - before).abs().max()),
        max_abs_logit=float(before.abs().max()),
    )


def _expected(plain: Any, folder: Path, group_size: int | None) -> Expected:
    """Each linear module but the output head becomes int8 weights, with a float32 scale and an int8 zero point
    for each output row (or group of inputs in it)."""
    stored = tensors_of_model(folder)
    head = plain.get_output_embeddings()
    size = sum(tensor.size for tensor in stored.values()) - stored_twice_bytes(folder, plain)
    names = []
    for name, module in plain.named_modules():
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        weight = module.weight
        inputs = weight.shape[1]
        if group_size is not None and inputs % group_size:
            raise SettingError(
                f"quantization.group_size: {group_size} does not divide the {inputs} inputs of {name}. Choose a "
                f"divisor, or leave it out for one scale per row."
            )
        scales = weight.shape[0] * (inputs // (group_size or inputs))
        size += weight.numel() * (1 - weight.element_size()) + scales * (SCALE_BYTES + 1)
        names.append(f"{name}._weight_qdata")
    if not names:
        raise UserError(
            "quantization: the model has no linear module but its output head: nothing to quantize."
        )
    return Expected(frozenset(names), size)


def _check_stored(folder: Path, expected: Expected) -> int:
    """Bytes of all stored tensors, which are those expected; the int8 ones are really int8."""
    stored = tensors_of_model(folder)
    int8 = {
        name for name, tensor in stored.items() if tensor.dtype == "I8" and name.endswith("_weight_qdata")
    }
    assert int8 == expected.quantized, f"not quantized: {sorted(expected.quantized ^ int8)[:3]}"
    size = sum(tensor.size for tensor in stored.values())
    assert size == expected.size, f"{size} bytes stored, {expected.size} expected"
    return size
