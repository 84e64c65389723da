"""A Llama 4 whose experts are stored as linear modules, read as transformers stores the text model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.stages.models.joined_experts_body import JoinedExperts

# Of a model that sees, the names of what reads text start so.
TEXT_MODEL = "language_model."


class TextModel:
    """The weights of the text model, with the experts of a layer in two parameters."""

    def __init__(self, folder: Path) -> None:
        self._stored = JoinedExperts(folder)
        self.is_linearized = bool(self._stored.joined)
        text = [name for name in self._stored.weights if name.startswith(TEXT_MODEL)]
        self._place = {name.removeprefix(TEXT_MODEL): name for name in text or self._stored.weights}
        self.names = sorted(self._place)

    def read(self, name: str) -> Any:
        """The tensor as numbers."""
        return self._stored.read(self._place[name])


def settings_of_text(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the text model, whose weights are plain numbers."""
    settings = dict(stored)
    if "text_config" in settings:
        kind = {"dtype": stored.get("dtype", stored.get("torch_dtype"))}
        settings = {**kind, **settings["text_config"], "architectures": ["Llama4ForCausalLM"]}
        settings["model_type"] = "llama4_text"
    settings.pop("quantization_config", None)
    return settings
