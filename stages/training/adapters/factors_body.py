"""The factors of an adapter in a model, and the weights of the base below them."""

from collections.abc import Iterator
from typing import Any

from peft.tuners.lora import LoraLayer

# PEFT's name of an adapter where none is given.
NAME = "default"


def adapted_layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Name and layer of everything that has factors."""
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer))


def weight_of(layer: Any) -> Any:
    """The base's weight under the factors."""
    return layer.get_param() if hasattr(layer, "get_param") else layer.get_base_layer().weight


def factors_of(module: Any, name: str = "") -> dict[str, Any]:
    """Name, as PEFT stores it -> factor, of a whole model, or of the layer of that name alone."""
    layers = adapted_layers(module) if not name else [(name, module)]
    found = {}
    for layer_name, layer in layers:
        for holder in ("lora_A", "lora_B"):
            if NAME in getattr(layer, holder):
                found[f"{layer_name}.{holder}.weight"] = getattr(layer, holder)[NAME].weight
        for holder in ("lora_embedding_A", "lora_embedding_B"):
            if NAME in getattr(layer, holder):
                found[f"{layer_name}.{holder}"] = getattr(layer, holder)[NAME]
    return found
