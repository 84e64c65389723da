"""Tensors that a config ties and that the files hold each by itself."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tunemill.stages.models.stored_tensor_body import same_bytes
from tunemill.stages.models.weights import tensors_of_model


def twice_stored(folder: Path, model: Any) -> Literal["no", "equal", "apart"]:
    """Whether the files hold tensors that `model` (also one without weights) ties: with one value, or with two.

    Transformers ties them where they are equal, and quietly does not where they differ.
    """
    stored = tensors_of_model(folder)
    pairs = [pair for pair in _ties(model) if all(name in stored for name in pair)]
    if not pairs:
        return "no"
    same = all(same_bytes(stored[one], stored[other]) for one, other in pairs)
    return "equal" if same else "apart"


def stored_twice_bytes(folder: Path, model: Any) -> int:
    """How many bytes of the files are second copies of tied tensors."""
    if twice_stored(folder, model) != "equal":
        return 0
    stored = tensors_of_model(folder)
    return sum(stored[target].size for target, source in _ties(model) if {target, source} <= set(stored))


def untie_config(path: Path) -> None:
    """Write into a config.json that head and embeddings have weights of their own."""
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config.get("text_config", {})):
        if "tie_word_embeddings" in part or part is config:
            part["tie_word_embeddings"] = False
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _ties(model: Any) -> Iterator[tuple[str, str]]:
    yield from model.all_tied_weights_keys.items()
