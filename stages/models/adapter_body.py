"""A stored adapter: loaded into a model, each of its tensors in its place, and written."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunemill.stages.errors import UserError
from tunemill.stages.models.adapter_folder import ADAPTER_WEIGHTS, BASE_NAME
from tunemill.stages.models.files import forget_versions
from tunemill.stages.models.rounded_body import with_adapter

# Names that an error shows.
SHOWN = 3


def load_adapter(model: Any, folder: Path, **settings: Any) -> tuple[Any, int]:
    """The model with the adapter, by PEFT with these `settings`, and how many tensors the adapter has.

    Raises UserError where one of them has no place in the model, or another shape there, or one is missing.
    """
    try:
        stored: dict[str, Any] = load_file(folder / ADAPTER_WEIGHTS)
    except SafetensorError as error:
        raise UserError(f"{folder / ADAPTER_WEIGHTS}: damaged ({error}). Fetch or save it again") from error
    with warnings.catch_warnings():
        # Of keys that are not there PEFT only warns, and of tied weights, whatever becomes of them.
        warnings.simplefilter("ignore")
        try:
            adapted = with_adapter(model, folder, ignore_mismatched_sizes=True, **settings)
        except ValueError as error:
            # PEFT looks for the modules that the adapter names.
            raise UserError(
                f"{str(error).splitlines()[0]} It belongs to another base model, or is damaged"
            ) from error
    held = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    odd = [*sorted(stored.keys() - held.keys()), *sorted(held.keys() - stored.keys())]
    if odd:
        raise UserError(
            f"{_first(odd)}: not in both the adapter and the base model. It is incomplete, or belongs to another base "
            f"model"
        )
    other = [name for name in sorted(stored) if stored[name].shape != held[name].shape]
    if other:
        raise UserError(
            f"{_first(other)}: {tuple(stored[other[0]].shape)} in the adapter, and the base model takes "
            f"{tuple(held[other[0]].shape)}. It belongs to another base model"
        )
    return adapted, len(stored)


def _first(names: list[str]) -> str:
    return f"{', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}"


def write_adapter(weights: Mapping[str, Any], settings: Any, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json, the same bytes for the same adapter.

    `settings` is PEFT's config, which is changed to what is stored.
    """
    save_file(
        {name: weights[name].detach().cpu().contiguous().clone() for name in sorted(weights)},
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    settings.base_model_name_or_path, settings.inference_mode = BASE_NAME, True
    settings.save_pretrained(folder)
    forget_versions(folder)
