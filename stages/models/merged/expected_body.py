"""What each weight of the merged model must be: PEFT's merge of one module, where the adapter changes it."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn

from tunemill.stages.models.walk_body import WRAPPERS


def replicated(settings: Mapping[str, Any]) -> list[int] | None:
    """The layer of the base that each layer of an adapter's model is a copy of; None where it has the base's layers."""
    ranges = settings.get("layer_replication")
    return [layer for start, end in ranges for layer in range(start, end)] if ranges else None


def plain_name(name: str) -> str:
    """The name that a module or weight of a model with an adapter has without it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def lora_weights(model: nn.Module) -> frozenset[str]:
    """The names of the weights that low-rank factors stand beside."""
    return frozenset(
        f"{plain_name(name)}.{getattr(part, 'parameter_name', 'weight')}"
        for name, part in model.named_modules()
        if isinstance(part, LoraLayer)
    )


def expected_weights(model: nn.Module, unit: str) -> Iterator[tuple[str, Any, int]]:
    """Name, weight and number of summed products of what the adapter changes in a unit, whose own weights `model` has.

    A weight is in float32, and the model is afterwards as it was. An element is a sum of as many products as the
    adapter has ranks there, and with DoRA over the norm of that many inputs more.
    """
    module = model.get_submodule(unit)
    for name, part in module.named_modules(prefix=unit):
        plain = plain_name(name)
        if isinstance(part, LoraLayer):
            yield _merged(plain, part)
        elif isinstance(part, ModulesToSaveWrapper):
            saved = part.modules_to_save[part.active_adapters[0]]
            for own, parameter in saved.named_parameters():
                yield f"{plain}.{own}", parameter.detach().float(), 0
        elif isinstance(part, TrainableTokensWrapper):
            layer = part.token_adapter
            yield f"{plain}.weight", layer.get_merged_weights(layer.active_adapters).detach().float(), 0


def _merged(name: str, layer: Any) -> tuple[str, Any, int]:
    holder, part = layer.get_base_layer(), getattr(layer, "parameter_name", "weight")
    before = getattr(holder, part).data
    with torch.no_grad():
        layer.merge(safe_merge=True)
    merged = getattr(holder, part).data
    getattr(holder, part).data = before
    layer.merged_adapters.clear()
    products = max(layer.r.values()) + (before.shape[-1] if any(layer.use_dora.values()) else 0)
    return f"{name}.{part}", merged, products
