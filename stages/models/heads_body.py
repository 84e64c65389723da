"""Models with a head that scores: their classes, the modules of the head, and its first values."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from tunemill.stages.errors import SettingError, SourceError
from tunemill.stages.models.adapter_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from tunemill.stages.models.heads import CLASSES, Head, Kind, head_of_config, kind_of_adapter
from tunemill.stages.models.weights import tensors_of_file

AUTO_CLASSES: dict[Kind, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
}
MAPPINGS: dict[Kind, Any] = {
    "sequence": MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    "token": MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
}
# A weight beside the body, as PEFT names it in an adapter's file.
STORED_HEAD = re.compile(r"base_model\.model\.\w+\.weight")
# Where a config names no spread of first values.
SPREAD = 0.02


def head_of_folder(folder: Path) -> Head | None:
    """The head of a stored model; None of a language model."""
    return head_of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def head_of_adapter(folder: Path) -> Head | None:
    """The head that a stored adapter holds beside its factors; None of a language model's adapter."""
    kind = kind_of_adapter(json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")))
    if kind is None:
        return None
    tensors = tensors_of_file(folder / ADAPTER_WEIGHTS)
    labels = [tensor.shape[0] for name, tensor in tensors.items() if STORED_HEAD.fullmatch(name)]
    if len(labels) != 1:
        raise SourceError(
            f"{folder}: an adapter of a model that scores, and its head is not in it. Save it again."
        )
    return Head(kind, labels[0])


def auto_class(head: Head | None) -> Any:
    """The class of transformers' that loads such a model."""
    return AutoModelForCausalLM if head is None else AUTO_CLASSES[head.kind]


def check_head(model_config: Any, head: Head) -> None:
    """Raise SettingError for a family of models that transformers knows with no such head."""
    if type(model_config) not in MAPPINGS[head.kind]:
        raise SettingError(
            f"base_model: transformers has no class ...{CLASSES[head.kind]} for models of type "
            f"{model_config.model_type}, so it cannot become {head}. Choose a base of another family."
        )


def head_modules(model: Any) -> list[str]:
    """Names of the modules that stand on the body of a model that scores; none in a language model."""
    body = model.base_model
    if model.get_output_embeddings() is not None or body is model:
        return []
    return [
        name
        for name, module in model.named_children()
        if module is not body and next(module.parameters(), None) is not None
    ]


def output_modules(model: Any) -> list[Any]:
    """The modules behind the last layer: the output head, or those of a head that scores."""
    head = model.get_output_embeddings()
    return [head] if head is not None else [model.get_submodule(name) for name in head_modules(model)]


def draw_head(model: Any, names: list[str], seed: int) -> None:
    """First values for the parameters of a new head, the same on every machine whatever else was drawn: normal ones
    with the spread of the model's config, and zeros for a bias.
    """
    spread = getattr(model.config.get_text_config(), "initializer_range", None) or SPREAD
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name in sorted(names):
            parameter = model.get_parameter(name)
            drawn = torch.zeros(parameter.shape)
            if parameter.ndim > 1:
                drawn.normal_(0.0, spread, generator=random)
            parameter.copy_(drawn)
