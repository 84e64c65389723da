"""The adapter of a training, whichever kind: around the model, and in its files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.training.adapters import lora_body, prompts_body
from tunemill.stages.training.keys.adapter import AdapterKeys


def add_adapter(config: AdapterKeys, model: Any, seed: int) -> Any:
    """The model with the adapter that the config asks for; its weights are drawn from `seed`.

    Raises SettingError where the model cannot have it.
    """
    add = lora_body.add_adapter if config.has_factors else prompts_body.add_prompts
    return add(config, model, seed)


def save_adapter(
    config: AdapterKeys, model: Any, folder: Path, gathered: Mapping[str, Any] | None = None
) -> None:
    """Write the adapter's weights and settings, as PEFT reads them.

    `gathered`: its weights by PEFT's names, where no process has them all.
    """
    save = lora_body.save_adapter if config.has_factors else prompts_body.save_prompts
    save(model, folder, gathered)
