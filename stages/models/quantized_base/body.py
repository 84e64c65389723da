"""Stores the linear modules of a base in 4 or 8 bits, and looks at what was really stored."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from tunemill.stages.artifacts import BaseModel
from tunemill.stages.errors import SettingError
from tunemill.stages.models.dequantize_body import StoredBase
from tunemill.stages.models.experts_body import BLOCK, round_experts
from tunemill.stages.models.files import copy_file, copy_tokenizer, forget_versions, model_files, weight_files
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.heads_body import auto_class, head_of_folder, output_modules
from tunemill.stages.models.joined_experts_body import JoinedExperts
from tunemill.stages.models.linear_experts_body import joined_experts
from tunemill.stages.models.loading_body import is_quantized, quantization_of
from tunemill.stages.models.module_names import leads_to
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.quantized_base.config import QuantizedBaseConfig
from tunemill.stages.models.quantized_base.llama4_body import pack_linear_experts
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.skeleton_body import skeleton_of_folder
from tunemill.stages.models.weights import sort_header, tensors_of_model
from tunemill.stages.report import Report, Workspace


def quantize_base(config: QuantizedBaseConfig, base_model: BaseModel, out: Workspace, report: Report) -> None:
    """Write the base with its linear modules in 4 or 8 bits, all but the output head.

    Always done on the CPU, so that it gives the same bytes on every machine. Raises SettingError where there is
    nothing to quantize, or a name in llm_int8_skip_modules is no module's.
    """
    be_quiet()
    use_code_of(base_model.path)
    if is_quantized(base_model.path):
        _take_over(config, base_model.path, out, report)
        return
    skipped = _skipped(config, base_model.path, report)
    settings = _settings(config, skipped)
    model = auto_class(head_of_folder(base_model.path)).from_pretrained(
        base_model.path, dtype="auto", quantization_config=settings, device_map={"": "cpu"}
    )
    if joined_experts(model):
        pack_linear_experts(config.llama4_linearized_experts, model, settings)
    elif config.quantize_moe_experts:
        _round(config, model, report)
    set_generation_aside(model)
    model.save_pretrained(out.data)
    del model
    forget_versions(out.data)
    if config.asked("bnb_4bit_compute_dtype") is None:
        _forget_compute_type(out.data / "config.json")
    for path in weight_files(out.data):
        sort_header(path)
    keep_generation(base_model.path, out.data)
    copy_tokenizer(base_model.path, out.data)
    _summarize(base_model.path, out.data, report)


def _round(config: QuantizedBaseConfig, model: Any, report: Report) -> None:
    in_8_bits = config.load_in_8bit
    count = round_experts(model, "int8" if in_8_bits else config.asked("bnb_4bit_quant_type") or "nf4")
    if not count:
        of_blocks = "" if in_8_bits else f" with a multiple of {BLOCK} inputs"
        raise SettingError(
            f"quantize_moe_experts: true, but {type(model).__name__} has no parameter of experts{of_blocks}. Take it "
            f"out."
        )
    report.log(
        f"the experts in {count} parameters are rounded to {8 if in_8_bits else 4} bits, and stored in {model.dtype}: "
        f"they are packed when the training has loaded them"
    )


def _take_over(config: QuantizedBaseConfig, base: Path, out: Workspace, report: Report) -> None:
    """A base that is in bits already stays as it is, as Axolotl has it too."""
    stored = quantization_of(base) or {}
    asked = "load_in_8bit" if config.load_in_8bit else "load_in_4bit"
    if not stored.get(asked):
        raise SettingError(
            f"{asked}: true, but the base is quantized already, in other bits. Take it out, or start from the model in "
            f"full precision."
        )
    if config.quantize_moe_experts:
        raise SettingError(
            "quantize_moe_experts: true, but the base is quantized already, and its experts stay as they are. Take it "
            "out, or start from the model in full precision."
        )
    report.log(f"the base is quantized already ({asked}): it stays as it is, whatever bnb_* says")
    for path in model_files(base):
        copy_file(path, out.data / path.name)
    copy_tokenizer(base, out.data)
    report.summary(
        bytes_before=sum(tensor.size for tensor in tensors_of_model(base).values()),
        bytes_after=sum(tensor.size for tensor in tensors_of_model(out.data).values()),
        quantized_modules=len(StoredBase(base).quantized),
    )


def _settings(config: QuantizedBaseConfig, skipped: list[str] | None) -> BitsAndBytesConfig:
    threshold = config.asked("llm_int8_threshold")
    asked: dict[str, Any] = {"llm_int8_skip_modules": skipped}
    if config.load_in_8bit:
        return BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_threshold=6.0 if threshold is None else threshold, **asked
        )
    double = config.asked("bnb_4bit_use_double_quant")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.asked("bnb_4bit_quant_type") or "nf4",
        bnb_4bit_use_double_quant=True if double is None else double,
        bnb_4bit_quant_storage=config.asked("bnb_4bit_quant_storage") or "bfloat16",
        bnb_4bit_compute_dtype=config.asked("bnb_4bit_compute_dtype"),
        **asked,
    )


def _skipped(config: QuantizedBaseConfig, folder: Path, report: Report) -> list[str] | None:
    """Modules that stay as they are; None leaves the choice to transformers: the output head."""
    model = skeleton_of_folder(folder)
    linear = {
        name: module.weight.shape[0] if isinstance(module, Conv1D) else module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D)
    }
    asked = config.asked("llm_int8_skip_modules") or []
    unknown = [name for name in asked if not any(leads_to(name, module) for module in linear)]
    if unknown:
        raise SettingError(
            f"llm_int8_skip_modules: {', '.join(unknown)}: no linear module of this model. It has "
            f"{', '.join(sorted({name.rpartition('.')[2] for name in linear}))}."
        )
    heads = output_modules(model)
    kept = {name for name, module in model.named_modules() if any(module is head for head in heads)}
    kept |= {name for name in linear if any(leads_to(one, name) for one in asked)}
    left = {name: inputs for name, inputs in linear.items() if name not in kept}
    uneven = {name: inputs for name, inputs in left.items() if inputs % BLOCK and not config.load_in_8bit}
    if len(uneven) == len(left):
        why = f": their inputs ({min(left.values())}, ...) are no multiple of {BLOCK}" if left else ""
        raise SettingError(
            f"load_in_{'8' if config.load_in_8bit else '4'}bit: {len(left)} linear modules beside the output head and "
            f"llm_int8_skip_modules, and none can be quantized{why}. Leave it out, with adapter: lora."
        )
    if uneven:
        example = min(uneven)
        report.log(
            f"{len(uneven)} linear modules stay as they are, such as {example}: {uneven[example]} inputs are no "
            f"multiple of {BLOCK}, and bitsandbytes does not read back such 4-bit weights on a CPU"
        )
    return sorted({*kept, *uneven}) if asked or uneven else None


def _forget_compute_type(path: Path) -> None:
    """Nothing was asked, so what multiplies the weights may choose: their bytes are the same."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["quantization_config"].pop("bnb_4bit_compute_dtype", None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _summarize(base: Path, quantized: Path, report: Report) -> None:
    """Sizes, and how far the stored weights are from those of the base: the largest of all root mean squares."""
    plain, stored = StoredBase(base), JoinedExperts(quantized)
    assert stored.quantized, "nothing was quantized"
    errors = []
    for name in sorted(stored.quantized):
        old, new = plain.read(name).float(), stored.read(name).float()
        errors.append(float((new - old).pow(2).mean().sqrt() / old.pow(2).mean().sqrt().clamp(min=1e-30)))
    report.summary(
        bytes_before=sum(tensor.size for tensor in tensors_of_model(base).values()),
        bytes_after=sum(tensor.size for tensor in tensors_of_model(quantized).values()),
        quantized_modules=len(stored.quantized),
        largest_relative_error=max(errors),
    )
