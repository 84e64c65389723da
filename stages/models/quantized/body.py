"""Stores the linear modules of a model quantized, experts and embeddings too where asked for, and has that proven."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, TorchAoConfig

from tunemill.stages.artifacts import EvaluationData, Model
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.files import INDEX_FILE, copy_tokenizer, forget_versions, weight_files
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.heads_body import auto_class, head_modules, head_of_folder, output_modules
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.models.quantization import QuantizationSettings
from tunemill.stages.models.quantization_body import Parts, parts_of, storing_by_name
from tunemill.stages.models.quantized.config import QuantizedConfig
from tunemill.stages.models.quantized.proof_body import prove
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.skeleton_body import skeleton_of_folder
from tunemill.stages.models.weights import sort_header
from tunemill.stages.report import Report, Workspace

# The first GPUs that compute with activations of the type.
CAPABILITIES = {"fp8": (8, 9), "nvfp4": (10, 0)}
# How transformers computes with experts one after the other. What it does otherwise, torchao has no products for.
ONE_BY_ONE = "eager"


def quantize(
    config: QuantizedConfig,
    model: Model,
    out: Workspace,
    report: Report,
    evaluation_data: EvaluationData | None = None,
) -> None:
    """Write the quantized model, and prove by what was written that it is what was asked for.

    Raises SettingError where the settings do not fit a module or this machine, UserError for a model that is already
    quantized, has nothing to quantize, or has most of its weights where nothing can be, and where the proof fails.
    """
    be_quiet()
    settings, trained = config.chosen, config.qat is not None
    check_machine(settings)
    use_code_of(model.path)
    if hasattr(AutoConfig.from_pretrained(model.path), "quantization_config"):
        raise UserError("quantization: the model is quantized already. Start from one in full precision.")
    skeleton = skeleton_of_folder(model.path)
    parts = parts_of(skeleton, settings, trained=trained)
    if parts.left_out:
        report.log(
            f"{parts.left_out:.0%} of the weights of linear layers are those of experts, for which there is no format "
            f"in {settings.words}: they stay as they are"
        )
    quantized = _load(model.path, skeleton, parts, settings, trained)
    try:
        measured = logits_of(quantized, fixed_tokens(quantized.config.get_text_config().vocab_size))
    except NotImplementedError as error:
        named = re.search(r"op='([\w.]+)'", str(error))
        raise UserError(
            f"{settings.key}: a {quantized.config.model_type} computes with its weights by "
            f"{named[1] if named else 'a function'}, which torchao does not have in {settings.words}. Use another "
            f"type, or keep the model as it is."
        ) from None
    _save(quantized, model.path, out.data, parts)
    del quantized
    rows = None if evaluation_data is None else evaluation_data.rows
    proof = prove(model.path, out.data, settings, trained=trained, rows=rows, measured=measured)
    if abs(proof["left_out_share"] - parts.left_out) > 1e-6:
        raise UserError(
            f"quantization: {proof['left_out_share']:.1%} of the weights of linear layers stayed as they were, and "
            f"{parts.left_out:.1%} were to. Report the family of the model."
        )
    if settings.weight_dtype == "int4":
        report.log(
            f"int4: a weight takes {proof['bits_per_weight']:.3g} bits in the files, scales included: torchao packs "
            f"4-bit integers on GPUs alone, so each has a byte. nvfp4 takes 4.5 bits, and so do GGUF's 4-bit types"
        )
    report.summary(
        quantized_modules=len(parts.linears),
        quantized_expert_tensors=len(parts.experts),
        quantized_embeddings=int(parts.embedding is not None),
        **proof,
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


def _load(folder: Path, skeleton: Any, parts: Parts, settings: QuantizationSettings, trained: bool) -> Any:
    """The model with these parts in the type asked for."""
    if settings.weight_dtype == "mxfp4" and skeleton.config.dtype != torch.bfloat16:
        raise SettingError(
            f"{settings.key}.weight_dtype: mxfp4 is stored of models in bfloat16, and this one is in "
            f"{str(skeleton.config.dtype).removeprefix('torch.')}. Set bf16: true and train again, or use nvfp4."
        )
    asked = TorchAoConfig(
        storing_by_name(skeleton, parts, settings, trained=trained),
        modules_to_not_convert=head_modules(skeleton) or None,
        include_input_output_embeddings=parts.embedding is not None,
    )
    kind = auto_class(head_of_folder(folder))
    one_by_one = {"experts_implementation": ONE_BY_ONE} if parts.experts else {}
    model = kind.from_pretrained(folder, dtype="auto", quantization_config=asked, **one_by_one).eval()
    if settings.weight_dtype == "fp8":
        _mend_rows_of_zeros(model)
    return model


def _mend_rows_of_zeros(model: Any) -> None:
    """A row of zeros gets the scale 1. Torchao divides it by 0, and a row that stands for padding often is one."""
    for parameter in model.parameters():
        scale = getattr(parameter, "scale", None)
        if scale is not None and bool((scale == 0).any()):
            parameter.qdata.view(torch.uint8).masked_fill_((scale == 0).expand_as(parameter.qdata), 0)
            scale[scale == 0] = 1


def _save(model: Any, source: Path, target: Path, parts: Parts) -> None:
    """Write it with all that belongs to the model, the same bytes every time."""
    set_generation_aside(model)
    model.save_pretrained(target)
    forget_versions(target)
    if parts.embedding is not None:
        table = model.get_submodule(parts.embedding)
        tied = {id(head) for head in output_modules(model) if head.weight is table.weight}
        _store_once(target, [name for name, module in model.named_modules() if id(module) in tied])
    if parts.experts:
        _compute_one_by_one(target / "config.json")
    for path in weight_files(target):
        sort_header(path)
    keep_generation(source, target)
    copy_tokenizer(source, target)


def _compute_one_by_one(path: Path) -> None:
    """Whoever loads the model gets the way to compute that works with these experts."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({**stored, "experts_implementation": ONE_BY_ONE}, indent=2) + "\n", encoding="utf-8"
    )


def _store_once(folder: Path, modules: list[str]) -> None:
    """Take tied modules out of the files: transformers stores a quantized one twice, and loads it only once."""
    prefixes = tuple(f"{module}." for module in modules)
    index = folder / INDEX_FILE
    gone = 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as reader:
            metadata, names = reader.metadata(), list(reader.keys())
            tensors = {name: reader.get_tensor(name) for name in names if not name.startswith(prefixes)}
            gone += sum(reader.get_tensor(name).nbytes for name in names if name.startswith(prefixes))
        if not tensors:
            path.unlink()
            continue
        listed = json.loads(metadata["tensor_names"])
        metadata["tensor_names"] = json.dumps([name for name in listed if not name.startswith(prefixes)])
        kept = {name: value for name, value in metadata.items() if not name.startswith(prefixes)}
        save_file(tensors, path, metadata=kept)
    if index.is_file():
        stored = json.loads(index.read_text(encoding="utf-8"))
        weights = {name: file for name, file in stored["weight_map"].items() if not name.startswith(prefixes)}
        stored["metadata"]["total_size"] -= gone
        index.write_text(json.dumps({**stored, "weight_map": weights}, indent=2, sort_keys=True) + "\n")
