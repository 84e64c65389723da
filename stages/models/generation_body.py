"""A model's generation_config.json on its way through the stages: kept as it is, and never in the way.

Transformers loads settings that contradict each other (temperature without do_sample), and refuses to save them.
"""

import json
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tunemill.stages.errors import SourceError
from tunemill.stages.models.files import copy_file, forget_version
from tunemill.stages.models.heads import head_of_config

GENERATION_FILE = "generation_config.json"
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_generation(folder: Path) -> None:
    """Raises SourceError for a file with which transformers loads no model at all."""
    if not (folder / GENERATION_FILE).is_file():
        return
    try:
        GenerationConfig.from_pretrained(folder)
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise SourceError(
            f"base_model: {folder / GENERATION_FILE}: transformers loads no model with it: "
            f"{str(error).splitlines()[0]} Correct it, or delete the file."
        ) from None


def set_generation_aside(model: Any) -> None:
    """Leave the model only the token ids of its generation settings, so that it can be saved."""
    if not model.can_generate():
        return
    old = model.generation_config
    ids = {name: getattr(old, name, None) for name in IDS}
    model.generation_config = GenerationConfig(**{name: i for name, i in ids.items() if _are_ids(i)})


def keep_generation(source: Path, target: Path) -> None:
    """The settings as `source` has them, where it has any, in place of those that were saved with the model; none for a
    model that scores.
    """
    if head_of_config(json.loads((target / "config.json").read_text(encoding="utf-8"))) is not None:
        return
    if (source / GENERATION_FILE).is_file():
        copy_file(source / GENERATION_FILE, target / GENERATION_FILE)
        forget_version(target / GENERATION_FILE)


def _are_ids(value: Any) -> bool:
    return all(isinstance(i, int) and i >= 0 for i in (value if isinstance(value, list) else [value]))
