"""The trained parameters in groups: with and without weight decay, projected or not, by learning rate."""

from collections.abc import Collection, Iterator
from typing import Any

from torch import nn
from transformers.trainer_utils import check_target_module_exists

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.rates import LORAPLUS_EMBEDDING
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.optimizers.table import Optimizer

Group = dict[str, Any]


def parameter_groups(
    config: TrainingKeys, chosen: Optimizer, model: nn.Module, decayed: Collection[str]
) -> list[Group]:
    """`decayed` are the names of the parameters that weight_decay is for. The first two groups may be empty.

    Raises SettingError where a key names no parameter that is trained.
    """
    targets = _targets(config, model) if chosen.targets else frozenset()
    extra = {**chosen.targets, **{k: v for k, v in config.optimizer_arguments.items() if k in chosen.targets}}
    rates = learning_rates(config, model)
    groups: dict[tuple[bool, bool, float | None], Group] = {}
    for decays in (True, False):
        groups[False, decays, None] = {
            "params": [],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        key = (name in targets, name in decayed, rates.get(name))
        plain = {"params": [], "weight_decay": config.weight_decay if name in decayed else 0.0}
        rate = {} if rates.get(name) is None else {"lr": rates[name]}
        group = groups.setdefault(key, {**plain, **rate, **(extra if name in targets else {})})
        group["params"].append(parameter)
    return list(groups.values())


def learning_rates(config: TrainingKeys, model: nn.Module) -> dict[str, float]:
    """Name of each trained parameter that has another learning rate -> that rate."""
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if config.has_factors and config.loraplus_lr_ratio is not None:
        return _loraplus(config, model, config.loraplus_lr_ratio)
    rates: dict[str, float] = {}
    if config.embedding_lr or config.embedding_lr_scale:
        rate = config.embedding_lr or config.learning_rate * (config.embedding_lr_scale or 1.0)
        embeddings = {id(one) for one in embedding_parameters(model)}
        named = dict(model.named_parameters())
        rates = {name: rate for name in trained if id(named[name]) in embeddings}
        if not rates:
            key = "embedding_lr" if config.embedding_lr else "embedding_lr_scale"
            raise SettingError(f"{key}: no embedding is trained. Remove it, or add lora_modules_to_save.")
    for group in reversed(config.lr_groups or []):
        found = {name: group.lr for name in trained if any(module in name for module in group.modules)}
        if not found:
            raise SettingError(
                f"lr_groups: {group.name}: {group.modules}: no parameter that is trained has such a name"
            )
        rates |= found
    return rates


def _loraplus(config: TrainingKeys, model: nn.Module, ratio: float) -> dict[str, float]:
    """As PEFT groups them: the second factors and all vectors are faster, adapters of embeddings apart."""
    rates = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if ".lora_embedding_" in name:
            rates[name] = config.loraplus_lr_embedding or LORAPLUS_EMBEDDING
        elif ".lora_B." in name or parameter.ndim == 1:
            rates[name] = config.learning_rate * ratio
    return rates


def embedding_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """The parameters of embeddings and of the head; of their adapters too."""
    plain: Any = model.get_base_model() if hasattr(model, "get_base_model") else model
    places = [name for name, module in plain.named_modules() if isinstance(module, nn.Embedding)]
    head = plain.get_output_embeddings()
    places += [name for name, module in plain.named_modules() if module is head]
    # Around what is adapted or trained beside an adapter, the layer itself is one of several.
    layers = {place.removesuffix(".base_layer").partition(".modules_to_save.")[0] for place in places}
    layers = {layer.removesuffix(".original_module") for layer in layers}
    for name, parameter in plain.named_parameters():
        if any(name.startswith(f"{layer}.") for layer in layers):
            yield parameter


def _targets(config: TrainingKeys, model: nn.Module) -> frozenset[str]:
    """Names of the trained weights of the linear layers that optim_target_modules names."""
    wanted = config.optim_target_modules
    every = isinstance(wanted, str) and wanted.replace("_", "-") == "all-linear"
    found = frozenset(
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad
        if every or check_target_module_exists(wanted, name)
    )
    if not found:
        raise SettingError(f"optim_target_modules: {wanted}: no linear layer that is trained has such a name")
    return found
