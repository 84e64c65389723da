"""The LoRA adapter around a model, and its files."""

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from tunemill.stages.errors import SettingError
from tunemill.stages.models.files import forget_versions
from tunemill.stages.training.keys.adapter import ALL_LINEAR, AdapterKeys

# A path would differ from store to store; the base is the artifact beside the adapter in the graph.
BASE_NAME = "base_model"
# The number of a layer in a module's whole name, as PEFT finds it.
LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


def add_adapter(config: AdapterKeys, model: Any, seed: int) -> Any:
    """The model with a LoRA adapter; its weights are drawn from `seed`.

    Raises SettingError where a name in the config matches no module, a layer number no layer, or the layout of
    weights that it names is not that of the modules.
    """
    _check_layers(config, model)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=_targets(config, model),
        modules_to_save=_saved_modules(config, model),
        fan_in_fan_out=config.lora_fan_in_fan_out,
        use_rslora=config.peft_use_rslora,
        layers_to_transform=config.peft_layers_to_transform,
        init_lora_weights=config.peft_init_lora_weights,
    )
    torch.manual_seed(seed)
    adapted = get_peft_model(model, lora)
    # PEFT takes the setting back, with a warning, where a module stores its weight the other way.
    if config.lora_fan_in_fan_out and not adapted.peft_config["default"].fan_in_fan_out:
        raise SettingError(
            "lora_fan_in_fan_out: true: modules that get an adapter store their weights (out, in), so it would be "
            "ignored. Remove it."
        )
    return adapted


def _targets(config: AdapterKeys, model: Any) -> list[str] | str:
    """Names for PEFT, each matching a module's whole name or its end; a string is a regular expression."""
    modules = [name for name, _ in model.named_modules() if name]
    wanted = config.lora_target_modules or []
    if isinstance(wanted, str) and wanted != ALL_LINEAR:
        if not any(re.fullmatch(wanted, name) for name in modules):
            raise SettingError(
                f"lora_target_modules: the regular expression {wanted} matches no whole module name."
            )
        return wanted
    names = [] if isinstance(wanted, str) else wanted
    _check_names("lora_target_modules", names, modules)
    layers = config.peft_layers_to_transform
    if not config.takes_every_linear:
        return _in_layers(names, modules, layers)
    if not names and layers is None:
        return ALL_LINEAR
    head = model.get_output_embeddings()
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    ]
    return _in_layers(sorted({*linear, *names}), modules, layers)


def _in_layers(names: list[str], modules: Sequence[str], layers: Sequence[int] | None) -> list[str]:
    """The names that lead into these layers, if any are given.

    Of the end of a name PEFT tells that itself; of a module's whole name it does not.
    """
    if layers is None:
        return names
    numbers = {name: LAYER.match(f"{name}.") for name in names if name in modules}
    kept = [name for name in names if (found := numbers.get(name)) is None or int(found[1]) in layers]
    if not kept:
        raise SettingError(
            f"peft_layers_to_transform: {layers}: none of the modules in lora_target_modules is in these layers."
        )
    return kept


def _saved_modules(config: AdapterKeys, model: Any) -> list[str] | None:
    if config.lora_modules_to_save:
        modules = [name for name, _ in model.named_modules() if name]
        _check_names("lora_modules_to_save", config.lora_modules_to_save, modules)
    return config.lora_modules_to_save


def _check_names(key: str, wanted: list[str], modules: list[str]) -> None:
    unknown = [name for name in wanted if not any(m == name or m.endswith(f".{name}") for m in modules)]
    if unknown:
        known = sorted({name.rpartition(".")[2] for name in modules if not name.rpartition(".")[2].isdigit()})
        raise SettingError(
            f"{key}: {', '.join(unknown)}: no module of this model. It has {', '.join(known)}."
        )


def _check_layers(config: AdapterKeys, model: Any) -> None:
    layers = model.config.get_text_config().num_hidden_layers
    beyond = [layer for layer in config.peft_layers_to_transform or [] if layer >= layers]
    if beyond:
        raise SettingError(
            f"peft_layers_to_transform: {', '.join(map(str, beyond))}: the model's layers are 0 to {layers - 1}."
        )


def save_adapter(model: Any, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, the same bytes for the same adapter."""
    weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file(
        {name: weights[name].detach().cpu().contiguous().clone() for name in sorted(weights)},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    lora = copy.deepcopy(model.peft_config["default"])
    lora.base_model_name_or_path = BASE_NAME
    lora.inference_mode = True
    if not isinstance(lora.target_modules, str):
        # PEFT keeps a set, and writes it in whatever order the process hashes strings.
        lora.target_modules = sorted(lora.target_modules)
    if lora.modules_to_save is not None:
        lora.modules_to_save = sorted(lora.modules_to_save)
    lora.save_pretrained(folder)
    forget_versions(folder)
