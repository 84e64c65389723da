"""What the names of stored tensors say of layers and head, without building the model."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.errors import SourceError
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.weights import StoredTensor, tensors_of_model

LAYER = re.compile(r"model\.layers\.(\d+)\..+")
EMBEDDINGS, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def readable_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor; none where a header cannot be read, which the body says."""
    try:
        return tensors_of_model(folder)
    except (SourceError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def fault_of_tensors(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Layers that the config names and the files lack, and a head that is neither tied nor there.

    Only for names as most models have them: the body looks at every tensor of every model.
    """
    names = readable_tensors(folder).keys()
    wanted = settings.get("num_hidden_layers")
    found = {int(match[1]) for name in names if (match := LAYER.fullmatch(name))}
    if not found or EMBEDDINGS not in names or type(wanted) is not int:
        return None
    if lacking := sorted(set(range(wanted)) - found):
        shown = ", ".join(f"model.layers.{number}" for number in lacking[:3])
        return (
            f"{folder}: config.json names {wanted} layers, and no tensor of {shown} is in the files. Fetch the model "
            f"again, or correct num_hidden_layers"
        )
    scores = head_of_config(settings) is not None
    if settings.get("tie_word_embeddings") is False and HEAD not in names and not scores:
        return (
            f"{folder}: config.json says tie_word_embeddings: false, and {HEAD} is not in the files. Fetch the model "
            f"again, or correct config.json"
        )
    return None
