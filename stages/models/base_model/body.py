"""Reads a model folder, fits it to the tokenizer, checks it, and writes it as one artifact."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.base_model.config import BaseModelConfig
from tunemill.stages.models.base_model.folder import fault_of_class, fault_of_folder, fault_of_settings
from tunemill.stages.models.base_model.special_tokens import align_special_tokens
from tunemill.stages.models.files import (
    copy_file,
    copy_tokenizer,
    forget_versions,
    model_files,
)
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.weights import tensors_of_model
from tunemill.stages.report import Report, Workspace


def base_model(
    config: BaseModelConfig, tokenizer: Tokenizer, upstream: Model | None, out: Workspace, report: Report
) -> None:
    """Write a model folder whose embeddings hold every token of `tokenizer`.

    Weights are only loaded where they change (drawn anew, other config, longer embeddings); otherwise the files
    are copied. Raises SourceError for a folder that is no model, SettingError for overrides that do not fit it.
    """
    be_quiet()
    folder = _source_folder(config, upstream)
    words = AutoTokenizer.from_pretrained(tokenizer.path)
    model_config = _model_config(config, folder)
    rows = model_config.get_text_config().vocab_size
    wanted = math.ceil(len(words) / 32) * 32 if config.resize_token_embeddings_to_32x else len(words)
    if config.reinit_weights or config.overrides_of_model_config or wanted > rows:
        report.log(f"loading the weights: {rows} embedding rows, {max(rows, wanted)} wanted")
        _write_changed(config, folder, model_config, max(rows, wanted), out.data)
    else:
        for path in model_files(folder):
            copy_file(path, out.data / path.name)
    copy_tokenizer(tokenizer.path, out.data)
    _align(
        out.data, {name: getattr(words, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    )
    _summarize(out.data, len(words), report)


def _source_folder(config: BaseModelConfig, upstream: Model | None) -> Path:
    assert (config.base_model is None) != (upstream is None), "one of base_model and upstream"
    if upstream is not None:
        return upstream.path
    assert config.base_model is not None
    folder = Path(config.base_model)
    if reason := fault_of_folder(folder, reads_weights=not config.reinit_weights):
        raise SourceError(f"base_model: {reason}.")
    return folder


def _model_config(config: BaseModelConfig, folder: Path) -> Any:
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if reason := fault_of_settings(folder, stored):
        raise SourceError(f"base_model: {reason}.")
    if reason := fault_of_class(stored, config.model_class):
        raise SettingError(f"model_type: {reason}.")
    overrides = config.overrides_of_model_config or {}
    loaded, unused = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, **overrides)
    if unused:
        raise SettingError(
            f"overrides_of_model_config: {', '.join(sorted(unused))}: no such key in the config of a "
            f"{loaded.model_type} model. Correct the name, or leave it out."
        )
    return loaded


def _write_changed(config: BaseModelConfig, folder: Path, model_config: Any, rows: int, target: Path) -> None:
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(config.seed)
        model = _draw(model_config) if config.reinit_weights else _load(folder, model_config)
        if rows > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(rows, mean_resizing=config.mean_resizing_embeddings)
    model.save_pretrained(target)
    forget_versions(target)
    generation = folder / "generation_config.json"
    if generation.is_file():
        copy_file(generation, target / generation.name)


def _draw(model_config: Any) -> Any:
    return AutoModelForCausalLM.from_config(model_config, dtype=model_config.dtype or torch.float32)


def _load(folder: Path, model_config: Any) -> Any:
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, config=model_config, dtype="auto", output_loading_info=True, ignore_mismatched_sizes=True
    )
    misfits = {
        "missing from the files": info["missing_keys"],
        "of another shape": [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]],
        "in the files but not in the model": info["unexpected_keys"],
    }
    for how, names in misfits.items():
        if names:
            raise SettingError(
                f"base_model: {folder}: with this config {len(names)} tensors are {how}, such as {min(names)}. Correct "
                f"overrides_of_model_config, or set reinit_weights: true to draw new weights."
            )
    return model


def _align(folder: Path, ids: dict[str, int | None]) -> None:
    config_file, generation_file = folder / "config.json", folder / "generation_config.json"
    old = json.loads(config_file.read_text(encoding="utf-8"))
    old_generation = (
        json.loads(generation_file.read_text(encoding="utf-8")) if generation_file.is_file() else {}
    )
    config, generation = align_special_tokens(old, old_generation, ids)
    if config != old:
        config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if generation != old_generation:
        generation_file.write_text(json.dumps(generation, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _summarize(folder: Path, tokens: int, report: Report) -> None:
    stored = tensors_of_model(folder)
    rows = AutoConfig.from_pretrained(folder).get_text_config().vocab_size
    assert tokens <= rows, f"{tokens} tokens do not fit in {rows} embedding rows"
    sizes: dict[str, int] = {}
    for tensor in stored.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size
    report.summary(
        parameters=sum(tensor.elements for tensor in stored.values()),
        bytes=sum(tensor.size for tensor in stored.values()),
        dtype=max(sizes, key=lambda dtype: (sizes[dtype], dtype)),
        embedding_rows=rows,
        tokens=tokens,
    )
