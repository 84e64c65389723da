"""Loading a model folder, quantized by bitsandbytes or not: as it is, or with a head that scores."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoConfig, AutoModelForCausalLM

from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.heads import Head
from tunemill.stages.models.heads_body import (
    auto_class,
    check_head,
    draw_head,
    head_modules,
    head_of_adapter,
    head_of_folder,
)
from tunemill.stages.models.skeleton_body import skeleton_of

COMPUTE_TYPE = "bnb_4bit_compute_dtype"


def is_quantized(folder: Path) -> bool:
    """Whether the weights in a model folder are quantized."""
    return quantization_of(folder) is not None


def quantization_of(folder: Path) -> dict[str, Any] | None:
    """What the config.json says of its quantization."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found: dict[str, Any] | None = config.get("quantization_config")
    return found


def load_causal_lm(folder: Path, *, dtype: Any, compute_type: Any = None, **settings: Any) -> Any:
    """The language model, in `dtype` but for quantized weights, which are moved to the device that trains right away.

    4-bit weights are multiplied in the type that the folder names, else in `compute_type`, else in that of their
    inputs. Raises SettingError for a model that scores: transformers would draw an output head for it.
    """
    if (found := head_of_folder(folder)) is not None:
        raise SettingError(f"base_model: it is {found}, and this takes a language model. Name one.")
    return _load(AutoModelForCausalLM, folder, dtype, compute_type, settings)


def load_model(
    folder: Path,
    head: Head | None = None,
    *,
    seed: int = 0,
    dtype: Any,
    compute_type: Any = None,
    **settings: Any,
) -> Any:
    """The model as the folder has it, or with this head: that of the folder, or in place of the output head of the
    language model there a new one, drawn from `seed`. As to types see `load_causal_lm`.

    Raises SettingError for a folder with another head, and a family of models that has none.
    """
    found = head_of_folder(folder)
    if head is not None and found not in (None, head):
        raise SettingError(
            f"base_model: it is {found}, and {head} is trained. Start from such a one, or a language model."
        )
    if head is None or found is not None:
        return _load(auto_class(found), folder, dtype, compute_type, settings)
    model_config = config_with_head(folder, head)
    if is_quantized(folder):
        _keep_whole(model_config, head)
    settings |= {"config": model_config, "output_loading_info": True}
    with warnings.catch_warnings():
        # Of the output head, which is left out, and the new one.
        warnings.simplefilter("ignore")
        model, told = _load(auto_class(head), folder, dtype, compute_type, settings)
    modules = [(name, model.get_submodule(name)) for name in head_modules(model)]
    new = [f"{name}.{part}" for name, module in modules for part, _ in module.named_parameters()]
    if lost := sorted(set(told["missing_keys"]) - set(new)):
        raise SourceError(
            f"base_model: {folder}: {', '.join(lost[:3])}: not in its files. Fetch the model again."
        )
    draw_head(model, new, seed)
    return model


def config_with_head(folder: Path, head: Head | None) -> Any:
    """The config of a model folder, with this head in place of the output head of the language model there."""
    model_config = AutoConfig.from_pretrained(folder)
    if head is None or head_of_folder(folder) is not None:
        return model_config
    check_head(model_config, head)
    model_config.num_labels, model_config.architectures = head.labels, None
    if head.names:
        model_config.id2label = dict(enumerate(head.names))
        model_config.label2id = {name: number for number, name in model_config.id2label.items()}
    return model_config


def load_base_of(adapter: Path, folder: Path, *, dtype: Any, **settings: Any) -> Any:
    """The base of a stored adapter as it was trained: with the adapter's kind of head, whose values the adapter has."""
    return load_model(folder, head_of_adapter(adapter), dtype=dtype, **settings)


def _keep_whole(model_config: Any, head: Head) -> None:
    """A new head is not quantized, whichever modules of the base are not."""
    stored = {**model_config.quantization_config}
    # The skeleton of a model takes no notice of how weights are stored.
    names = head_modules(skeleton_of(model_config, head))
    stored["llm_int8_skip_modules"] = [*(stored.get("llm_int8_skip_modules") or []), *names]
    model_config.quantization_config = stored


def _load(kind: Any, folder: Path, dtype: Any, compute_type: Any, settings: dict[str, Any]) -> Any:
    stored = quantization_of(folder)
    if stored is None:
        return kind.from_pretrained(folder, dtype=dtype, **settings)
    place = {"": torch.cuda.current_device() if torch.cuda.is_available() else "cpu"}
    loaded = kind.from_pretrained(folder, dtype=dtype, **{"device_map": place, **settings})
    model = loaded[0] if isinstance(loaded, tuple) else loaded
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs it would store its weight anew, in bfloat16, as soon as it is evaluated.
            module.support_avx512bf16_for_cpu = False
            if COMPUTE_TYPE not in stored:
                module.compute_dtype = compute_type
                module.compute_type_is_set = compute_type is not None
    return loaded
