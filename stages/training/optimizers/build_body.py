"""The optimizer that a config asks for, over the parameters of a model that are trained."""

from collections.abc import Collection
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers.training_args import OptimizerNames

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.machine_body import Precision
from tunemill.stages.training.optimizers.groups_body import Group, embedding_parameters, parameter_groups
from tunemill.stages.training.optimizers.joint_body import BackwardOptimizer, JointOptimizer
from tunemill.stages.training.optimizers.table import OPTIMIZERS, Optimizer

CPU_INSTEAD = "Use adamw_torch_fused, or adamw_bnb_8bit, which needs little memory and runs everywhere."
TRAINERS_NAMES = frozenset(name.value for name in OptimizerNames)


def check_optimizer_here(name: str, precision: Precision) -> None:
    """Raise SettingError where this machine has no GPU that the optimizer needs, or lacks its package."""
    optimizer = OPTIMIZERS[name]
    if optimizer.in_backward and precision.fp16:
        raise SettingError(
            f"optimizer: {name}: uses each gradient as soon as it is computed, and float16, which this machine has in "
            f"place of bfloat16, needs scaled ones. Use float32: true, or another optimizer."
        )
    if optimizer.needs_gpu and not torch.cuda.is_available():
        raise SettingError(f"optimizer: {name}: needs a GPU, and this machine has none. {CPU_INSTEAD}")
    if find_spec(optimizer.made_by.partition(":")[0].partition(".")[0]) is None:
        raise SettingError(
            f"optimizer: {name}: needs the package {optimizer.library}, which is not installed. "
            f"pip install 'tunemill[{optimizer.extra}]'"
        )


def trainers_name(name: str) -> str:
    """What the Trainer is told: it treats some optimizers differently, and knows not all."""
    return name if name in TRAINERS_NAMES else "adamw_torch"


def loading_allowed(name: str) -> AbstractContextManager[Any]:
    """While open, a checkpoint may hold the classes that the optimizer's state is made of."""
    allowed: AbstractContextManager[Any] = torch.serialization.safe_globals(
        [_load(made_by) for made_by in OPTIMIZERS[name].stored]
    )
    return allowed


def build_optimizer(config: TrainingKeys, model: nn.Module, decayed: Collection[str], warmup: int) -> Any:
    """`decayed` are the names of the parameters that weight_decay is for; `warmup` is in steps.

    Raises SettingError where optim_target_modules names no linear layer.
    """
    chosen = OPTIMIZERS[config.optimizer]
    kind, settings = _load(chosen.made_by), settings_of(config, chosen, warmup)
    groups = parameter_groups(config, chosen, model, decayed)
    if config.optimizer in ("lomo", "adalomo"):
        return kind(model, **settings)
    if config.optimizer == "muon":
        return _muon(config, kind, settings, groups, model)
    if chosen.in_backward:
        singles = [{**group, "params": [one]} for group in groups for one in group["params"]]
        return BackwardOptimizer([kind([single], **settings) for single in singles])
    made = kind(groups, **settings)
    if chosen.library == "bitsandbytes" and settings["optim_bits"] == 8:
        _keep_embeddings_whole(model)
    return made


def settings_of(config: TrainingKeys, chosen: Optimizer, warmup: int) -> dict[str, Any]:
    """The arguments of the optimizer's class."""
    given = {name: value for name, value in config.optimizer_arguments.items() if name not in chosen.targets}
    betas, eps = list(chosen.betas), list(chosen.eps)
    for number, value in enumerate((config.adam_beta1, config.adam_beta2, config.adam_beta3)):
        value = given.pop(f"beta{number + 1}", value) if number < len(betas) else None
        if value is not None:
            betas[number] = value
    for number, value in enumerate((config.adam_epsilon, config.adam_epsilon2)):
        if value is not None:
            eps[number] = value
    if eps and "eps" in given:
        eps[0] = given.pop("eps")
    made: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, **chosen.fixed}
    if betas:
        made["betas"] = tuple(betas)
    if eps:
        made["eps"] = tuple(eps) if len(eps) > 1 else eps[0]
    if not torch.cuda.is_available():
        made |= chosen.without_gpu
    if config.optimizers_warmup and config.optimizer != "schedule_free_radam":
        made["warmup_steps"] = warmup
    return made | given


def _muon(
    config: TrainingKeys, kind: Any, settings: dict[str, Any], groups: list[Group], model: nn.Module
) -> Any:
    """Muon for the matrices inside the model; AdamW for embeddings, the head and vectors."""
    outside = {id(one) for one in embedding_parameters(model)}
    adam = {name: settings.pop(name) for name in ("betas", "eps")}

    def part(is_muons: bool) -> list[Group]:
        split = [
            {
                **group,
                "params": [p for p in group["params"] if (p.ndim == 2 and id(p) not in outside) == is_muons],
            }
            for group in groups
        ]
        return [group for group in split if group["params"]]

    parts = []
    if part(True):
        parts.append(kind(part(True), **settings))
    if part(False):
        parts.append(torch.optim.AdamW(part(False), lr=config.learning_rate, **adam))
    return JointOptimizer(parts)


def _keep_embeddings_whole(model: nn.Module) -> None:
    """The state of embeddings stays in 32 bits, as transformers has it."""
    manager = _load("bitsandbytes.optim:GlobalOptimManager").get_instance()
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})


def _load(made_by: str) -> Any:
    module, _, name = made_by.partition(":")
    return getattr(import_module(module), name)
