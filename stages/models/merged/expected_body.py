"""What each weight of the merged model must be: PEFT's merge of one module, where the adapter changes it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear, LoraLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn

from tunemill.stages.models.walk_body import WRAPPERS

# Numbers that are compared at a time.
BLOCK = 1 << 20


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


@dataclass(frozen=True)
class Expected:
    """A weight that the adapter changes: `blocks` gives slices of its rows and what they must be, in float32,
    in memory that the next one may take.

    An element is a sum of `products` products: the adapter's ranks there, and with DoRA the inputs of the norm too.
    """

    name: str
    products: int
    blocks: Callable[[], Iterator[tuple[slice, Any]]]


def expected_weights(model: nn.Module, unit: str) -> list[Expected]:
    """What the adapter changes in a unit, whose own weights `model` has."""
    module, found = model.get_submodule(unit), []
    for name, part in module.named_modules(prefix=unit):
        plain = plain_name(name)
        if isinstance(part, LoraLayer):
            found.append(_of_factors(plain, part))
        elif isinstance(part, ModulesToSaveWrapper):
            saved = part.modules_to_save[part.active_adapters[0]]
            found += [
                Expected(f"{plain}.{own}", 0, partial(_whole, parameter))
                for own, parameter in saved.named_parameters()
            ]
        elif isinstance(part, TrainableTokensWrapper):
            layer = part.token_adapter
            found.append(
                Expected(
                    f"{plain}.weight", 0, partial(_whole, layer.get_merged_weights(layer.active_adapters))
                )
            )
    return found


def _of_factors(name: str, layer: Any) -> Expected:
    holder, part = layer.get_base_layer(), getattr(layer, "parameter_name", "weight")
    weight = getattr(holder, part)
    dora = any(layer.use_dora.values())
    products = max(layer.r.values()) + (weight.shape[-1] if dora else 0)
    (adapter,) = layer.active_adapters
    plain = type(layer) is Linear and not layer.fan_in_fan_out and adapter not in layer.lora_variant
    blocks = partial(_sums, layer, adapter, weight) if plain else partial(_by_peft, layer, holder, part)
    return Expected(f"{name}.{part}", products, blocks)


def _sums(layer: Any, adapter: str, weight: Any) -> Iterator[tuple[slice, Any]]:
    """Of a linear module: W + B @ A * scaling, of PEFT's factors with PEFT's scaling."""
    a, b = layer.lora_A[adapter].weight.data, layer.lora_B[adapter].weight.data
    step = min(max(1, BLOCK // weight.shape[1]), weight.shape[0])
    sums = torch.empty(step, weight.shape[1])
    for start in range(0, weight.shape[0], step):
        rows = slice(start, min(start + step, weight.shape[0]))
        part = torch.mm(b[rows], a, out=sums[: rows.stop - start])
        yield rows, part.mul_(layer.scaling[adapter]).add_(weight.data[rows])


def _by_peft(layer: Any, holder: Any, part: str) -> Iterator[tuple[slice, Any]]:
    """PEFT's own merge; the model is afterwards as it was."""
    before = getattr(holder, part).data
    with torch.no_grad():
        layer.merge(safe_merge=True)
    merged = getattr(holder, part).data
    getattr(holder, part).data = before
    layer.merged_adapters.clear()
    yield slice(None), merged


def _whole(weight: Any) -> Iterator[tuple[slice, Any]]:
    yield slice(None), weight.detach().float()
