"""The config of the base model with its overrides."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tunemill.stages.errors import SettingError
from tunemill.stages.models.base_model.rope import given_rope, with_rope

KEY = "overrides_of_model_config"


def overridden_config(folder: Path, overrides: Mapping[str, Any]) -> Any:
    """Raises SettingError for a key that this model's config does not have, or a rotation that there is not."""
    if not overrides:
        return AutoConfig.from_pretrained(folder)
    plain = AutoConfig.from_pretrained(folder)
    stored = getattr(plain.get_text_config(), "rope_parameters", None)
    complete = dict(overrides)
    if stored is not None:
        original = getattr(plain.get_text_config(), "max_position_embeddings", None)
        complete = with_rope(stored, overrides, original)
    loaded, unused = AutoConfig.from_pretrained(folder, return_unused_kwargs=True, **complete)
    if unused:
        raise SettingError(
            f"{KEY}: {', '.join(sorted(unused))}: no such key in the config of a "
            f"{loaded.model_type} model. Correct the name, or leave it out."
        )
    name, _ = given_rope(overrides)
    if name:
        _check_rope(name, loaded)
    return loaded


def _check_rope(name: str, config: Any) -> None:
    parameters = config.rope_parameters
    nested = [part for part in parameters.values() if isinstance(part, dict)]
    known = ("default", *ROPE_INIT_FUNCTIONS)
    for part in nested or [parameters]:
        if part["rope_type"] not in known:
            raise SettingError(
                f"{KEY}.{name}: rope_type {part['rope_type']}: not one of {', '.join(sorted(known))}."
            )
        factor = part.get("factor", 1.0)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or factor < 1:
            raise SettingError(f"{KEY}.{name}: factor {factor}: must be a number of at least 1.")
    try:
        config.validate_rope()
    except (KeyError, TypeError) as error:
        raise SettingError(f"{KEY}.{name}: {error.args[0]}. Give what this rope_type needs.") from None
