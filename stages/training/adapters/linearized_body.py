"""Llama 4's experts as linear modules beside an adapter, and Axolotl's names of these as transformers'."""

from collections.abc import Mapping
from typing import Any, TypeVar

from tunemill.stages.errors import SettingError
from tunemill.stages.models.linear_experts_body import split_experts
from tunemill.stages.models.linearized import KEY, axolotls_name, fault_of_type, is_meant
from tunemill.stages.training.keys.adapter import ALL_LINEAR, AdapterKeys

Value = TypeVar("Value")


def linearize_experts(config: AdapterKeys, model: Any) -> None:
    """Give a model that gets an adapter linear experts, where that is asked. Raises SettingError for another model.

    In 4 bits they are linear already; where every weight is trained, it makes no difference how they are held.
    """
    if not config.llama4_linearized_experts:
        return
    if reason := fault_of_type(model.config.model_type):
        raise SettingError(f"{KEY}: {reason}.")
    if config.adapter is not None:
        split_experts(model)


def in_names_of(model: Any, config: AdapterKeys) -> AdapterKeys:
    """The config with whole names of the model's modules wherever it names some as Axolotl does."""
    names = {name: axolotls_name(name) for name, _ in model.named_modules() if name}

    def whole(asked: list[str] | str | None) -> list[str] | str | None:
        if asked is None or asked == ALL_LINEAR:
            return asked
        found = [own for own, meant in names.items() if is_meant(asked, meant)]
        # What names nothing stays, to be told of.
        if isinstance(asked, str):
            return found or asked
        return [*found, *(one for one in asked if not any(is_meant([one], name) for name in names.values()))]

    def values(patterns: Mapping[str, Value]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for pattern, value in patterns.items():
            for own, meant in names.items():
                if is_meant([pattern], meant):
                    found.setdefault(own, value)
        return found

    return config.model_copy(
        update={
            "lora_target_modules": whole(config.lora_target_modules),
            "lora_exclude_modules": whole(config.lora_exclude_modules),
            "lora_rank_pattern": values(config.lora_rank_pattern),
            "lora_alpha_pattern": values(config.lora_alpha_pattern),
        }
    )
