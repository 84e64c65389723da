"""The LoRA adapter around a model, and its files."""

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.adapter_body import load_adapter, write_adapter
from tunemill.stages.models.adapter_folder import stored_settings
from tunemill.stages.models.heads import LANGUAGE_TASK
from tunemill.stages.models.heads_body import head_modules, output_modules
from tunemill.stages.models.module_names import leads_to
from tunemill.stages.models.rounded_body import mark_rounded, rounding_of
from tunemill.stages.training.adapters.linearized_body import in_names_of
from tunemill.stages.training.adapters.loftq_body import start_from_rounding
from tunemill.stages.training.adapters.relora_body import with_folded
from tunemill.stages.training.adapters.starts_body import (
    first_factors,
    of_more_rank,
    probe,
    without_start,
)
from tunemill.stages.training.keys.adapter import ALL_LINEAR, AdapterKeys

# The number of a layer in a module's whole name, as PEFT finds it.
LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def add_adapter(config: AdapterKeys, model: Any, seed: int) -> Any:
    """The model with a LoRA adapter; its weights are drawn from `seed`.

    Raises SettingError where a name in the config matches no module, a layer number no layer, or the layout of
    weights that it names is not that of the modules.
    """
    if config.lora_model_dir is not None:
        return _stored_adapter(config, Path(config.lora_model_dir), model)
    if config.llama4_linearized_experts:
        config = in_names_of(model, config)
    _check_layers(config, model)
    lora = LoraConfig(
        task_type=LANGUAGE_TASK if config.head is None else config.head.task,
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=_targets(config, model),
        target_parameters=_parameters(config, model),
        exclude_modules=config.lora_exclude_modules,
        modules_to_save=_saved_modules(config, model),
        fan_in_fan_out=config.lora_fan_in_fan_out,
        use_rslora=config.peft_use_rslora,
        use_dora=config.peft_use_dora,
        rank_pattern=config.lora_rank_pattern,
        alpha_pattern=config.lora_alpha_pattern,
        layers_to_transform=config.peft_layers_to_transform,
        layers_pattern=config.peft_layers_pattern if config.peft_layers_to_transform is not None else None,
        layer_replication=config.peft_layer_replication,
        trainable_token_indices=config.peft_trainable_token_indices,
        ensure_weight_tying=config.peft_ensure_weight_tying,
        # What PEFT starts on a GPU alone is started below, and what it starts from data by `start_from_data`.
        init_lora_weights=True if config.rounds_base or config.looks_at_data else config.factor_start,
    )
    in_float32 = config.peft_autocast_adapter_dtype is not False
    before = probe(model) if config.takes_start_out and not config.looks_at_data else None
    torch.manual_seed(seed)
    try:
        adapted = get_peft_model(model, lora, autocast_adapter_dtype=in_float32)
    except (ValueError, TypeError, AttributeError, RuntimeError, NotImplementedError) as error:
        # PEFT looks at each module that it wraps; what it cannot do is known by then, before the first step.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError(
            f"adapter: {config.adapter}: PEFT cannot add it to this model: {reason}"
        ) from error
    _check_layout(config, adapted)
    adapted.first_factors = {} if before is None else first_factors(adapted, before, str(config.factor_start))
    adapted.folded = []
    adapted.rounding = start_from_rounding(adapted, config.rounds_base) if config.rounds_base else None
    adapted.rounded_through = config.rounds_base
    return adapted


def _stored_adapter(config: AdapterKeys, folder: Path, model: Any) -> Any:
    """The model with a stored adapter, to be trained further. Raises SettingError where it is of another model."""
    reasons = [
        f"{fault.key}: {fault.reason}" for fault in config.faults() if fault.key in AdapterKeys.model_fields
    ]
    if not folder.is_dir():
        reasons = [f"lora_model_dir: {folder}: no folder of an adapter"]
    if reasons:
        raise SettingError(f"{reasons[0]}.")
    in_float32 = config.peft_autocast_adapter_dtype is not False
    try:
        adapted, _ = load_adapter(model, folder, is_trainable=True, autocast_adapter_dtype=in_float32)
    except UserError as error:
        raise SettingError(f"lora_model_dir: {folder}: {error}.") from error
    adapted.first_factors, adapted.folded, adapted.rounding = {}, [], None
    adapted.rounded_through = rounding_of(stored_settings(folder) or {})
    return adapted


def _check_layout(config: AdapterKeys, adapted: Any) -> None:
    """PEFT corrects the setting for each module that stores its weight the other way; if all do, it is ignored."""
    layers = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    if config.factor_start == "olora" and any(getattr(layer, "fan_in_fan_out", False) for layer in layers):
        raise SettingError(
            "peft_init_lora_weights: olora: PEFT reads weights as (out, in), and modules that get an adapter store "
            "them (in, out), as in GPT-2. Use pissa, which takes either."
        )
    if config.lora_fan_in_fan_out and not any(getattr(layer, "fan_in_fan_out", False) for layer in layers):
        raise SettingError(
            "lora_fan_in_fan_out: true: modules that get an adapter store their weights (out, in), so it would be "
            "ignored. Remove it."
        )


def _parameters(config: AdapterKeys, model: Any) -> list[str] | None:
    """Names of parameters for PEFT, each matching a whole name or its end."""
    wanted = config.lora_target_parameters
    if not wanted:
        return None
    names = [name for name, _ in model.named_parameters()]
    unknown = [one for one in wanted if not any(leads_to(one, name) for name in names)]
    if unknown:
        known = sorted({".".join(name.split(".")[-2:]) for name in names})
        raise SettingError(
            f"lora_target_parameters: {', '.join(unknown)}: no parameter of this model. It has {', '.join(known)}."
        )
    return wanted


def _targets(config: AdapterKeys, model: Any) -> list[str] | str:
    """Names for PEFT, each matching a module's whole name or its end; a string is a regular expression."""
    modules = [name for name, _ in model.named_modules() if name]
    wanted = config.lora_target_modules or []
    if isinstance(wanted, str) and wanted != ALL_LINEAR:
        if not any(re.fullmatch(wanted, name) for name in modules):
            raise SettingError(
                f"lora_target_modules: the regular expression {wanted} matches no whole module name."
            )
        _check_no_head([name for name in modules if re.fullmatch(wanted, name)], model)
        return wanted
    names = [] if isinstance(wanted, str) else wanted
    _check_names("lora_target_modules", names, modules)
    _check_no_head(names, model)
    layers = config.peft_layers_to_transform
    if not config.takes_every_linear:
        return _in_layers(config, names, modules)
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    odd = {name for name in linear if not is_linear(model.get_submodule(name))}
    if not names and layers is None and not odd and config.head is None:
        return ALL_LINEAR
    heads = {id(module) for module in output_modules(model)}
    linear = [name for name in linear if name not in odd and id(model.get_submodule(name)) not in heads]
    return _in_layers(config, sorted({*linear, *names}), modules)


def _check_no_head(names: Sequence[str], model: Any) -> None:
    """A head that scores is trained whole."""
    heads = [name for name in head_modules(model) if any(leads_to(one, name) for one in names)]
    if heads:
        raise SettingError(
            f"lora_target_modules: {heads[0]}: the head of this model is new and trained whole. Take it out."
        )


def is_linear(module: torch.nn.Linear) -> bool:
    """Whether it gives what a linear module gives: a router may be made of one, and give more."""
    kind = type(module)
    return kind.forward is torch.nn.Linear.forward or not kind.__module__.startswith("transformers")


def _in_layers(config: AdapterKeys, names: list[str], modules: Sequence[str]) -> list[str]:
    """The names that lead into these layers, if any are given.

    Of the end of a name PEFT tells that itself; of a module's whole name it does not.
    """
    layers, before = config.peft_layers_to_transform, config.peft_layers_pattern
    if layers is None:
        return names
    number = re.compile(rf".*?\.(?:{'|'.join(before)})\.(\d+)\.") if before else LAYER
    inside = [name for name in modules if (found := number.match(f"{name}.")) and int(found[1]) in layers]
    if names and not any(leads_to(name, module) for name in names for module in inside):
        raise SettingError(
            f"peft_layers_to_transform: {layers}: none of the modules in lora_target_modules is in these layers."
        )
    numbers = {name: number.match(f"{name}.") for name in names if name in modules}
    return [name for name in names if (found := numbers.get(name)) is None or int(found[1]) in layers]


def _saved_modules(config: AdapterKeys, model: Any) -> list[str] | None:
    if config.lora_modules_to_save:
        modules = [name for name, _ in model.named_modules() if name]
        _check_names("lora_modules_to_save", config.lora_modules_to_save, modules)
    if config.head is None:
        return config.lora_modules_to_save
    return [*(config.lora_modules_to_save or []), *head_modules(model)]


def _check_names(key: str, wanted: list[str], modules: list[str]) -> None:
    unknown = [name for name in wanted if not any(leads_to(name, module) for module in modules)]
    if unknown:
        known = sorted({name.rpartition(".")[2] for name in modules if not name.rpartition(".")[2].isdigit()})
        raise SettingError(
            f"{key}: {', '.join(unknown)}: no module of this model. It has {', '.join(known)}."
        )


def _check_layers(config: AdapterKeys, model: Any) -> None:
    layers = model.config.get_text_config().num_hidden_layers
    last = max((end for _, end in config.peft_layer_replication or []), default=0)
    if last > layers:
        raise SettingError(f"peft_layer_replication: {last}: the model has {layers} layers.")
    beyond = [layer for layer in config.peft_layers_to_transform or [] if layer >= layers]
    if beyond:
        raise SettingError(
            f"peft_layers_to_transform: {', '.join(map(str, beyond))}: the model's layers are 0 to {layers - 1}."
        )


def save_adapter(model: Any, folder: Path, gathered: Mapping[str, Any] | None = None) -> None:
    """Write the adapter and its settings, as PEFT reads them; `gathered` as the adapters' `save_adapter` has it.

    It belongs to the base as it was, whatever its start took out of it, or restarts have folded into it; and to the
    rounded one, as its config says, where its start rounded it.
    """
    weights = dict(gathered or get_peft_model_state_dict(model, save_embedding_layers=False))
    weights = with_folded(weights, model) if model.folded else without_start(weights, model.first_factors)
    lora = copy.deepcopy(model.peft_config["default"])
    if model.first_factors or model.folded:
        of_more_rank(lora, times=len(model.folded) + 1 if model.folded else 2)
    if model.rounded_through:
        mark_rounded(lora, model.rounded_through)
    if not isinstance(lora.target_modules, str):
        # PEFT keeps a set, and writes it in whatever order the process hashes strings.
        lora.target_modules = sorted(lora.target_modules)
    # The name of a parameter that PEFT would look for among an empty set of them.
    lora.target_parameters = sorted(lora.target_parameters) if lora.target_parameters else None
    if lora.task_type != LANGUAGE_TASK and lora.modules_to_save is not None:
        # PEFT adds names that heads which score have in other families.
        there = [name for name, _ in model.get_base_model().named_modules()]
        lora.modules_to_save = {
            one for one in lora.modules_to_save if any(leads_to(one, name) for name in there)
        }
    if lora.modules_to_save is not None:
        lora.modules_to_save = sorted(lora.modules_to_save)
    write_adapter(weights, lora, folder)
