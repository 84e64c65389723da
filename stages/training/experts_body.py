"""Asking for a way to compute experts, of a model that has some."""

from typing import Any

from tunemill.stages.errors import SettingError
from tunemill.stages.training.keys.experts import ExpertKeys


def set_experts(config: ExpertKeys, model: Any) -> None:
    """Raises SettingError where nothing would read the setting."""
    if config.experts is None:
        return
    if not any(type(module).__name__.endswith("Experts") for module in model.modules()):
        raise SettingError(
            f"experts_implementation: {config.experts}: {type(model).__name__} has no experts whose computation "
            f"transformers lets one choose. Remove it."
        )
    model.set_experts_implementation(config.experts)
