"""Loading a model that is scored."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig

from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.models.gguf_loading_body import gguf_of, load_gguf
from tunemill.stages.models.gguf_reading_body import read_file
from tunemill.stages.models.heads import Kind
from tunemill.stages.models.heads_body import head_of_adapter, head_of_folder
from tunemill.stages.models.loading_body import is_quantized, load_base_of, load_model
from tunemill.stages.models.rounded_body import with_adapter


def load_scored(model: Model, adapter: Adapter | None, kind: Kind | None = None) -> Any:
    """The model, with its adapter if there is one, in the type of its weights and on its device, in evaluation mode.

    What a GGUF file holds is in float32. `kind`: what its head scores; None of a language model. Raises SettingError
    for a model with another head.
    """
    found = head_of_folder(model.path) if adapter is None else head_of_adapter(adapter.path)
    if kind != (found and found.kind):
        wanted = "a language model" if kind is None else f"one that scores each {kind}"
        raise SettingError(
            f"evaluation: {found or 'a language model'}, where {wanted} is evaluated. Take it out of pipeline.evaluate."
        )
    file = gguf_of(model.path)
    if file is not None:
        loaded, _ = load_gguf(read_file(file))
    elif adapter is None:
        loaded = load_model(model.path, dtype="auto")
    else:
        loaded = with_adapter(load_base_of(adapter.path, model.path, dtype="auto"), adapter.path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # What is quantized lies on its device already, and some of it cannot be moved.
    return (loaded if is_quantized(model.path) else loaded.to(device)).eval()


def load_answering(model: Model, adapter: Adapter | None) -> tuple[Any, frozenset[int]]:
    """A language model without settings of its own for generation, and the tokens that end its answers."""
    loaded = load_scored(model, adapter)
    plain = loaded if adapter is None else loaded.get_base_model()
    end_ids = _end_ids(plain.generation_config)
    # generate() fills gaps from the model's own settings: sampling or penalties there would leak into greedy search.
    for one in (plain, loaded):
        one.generation_config = GenerationConfig()
    return loaded, end_ids


def end_ids_of(folder: Path) -> frozenset[int]:
    """The tokens that end the answers of a model folder, without loading its weights."""
    try:
        settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    except OSError:
        settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    return _end_ids(settings)


def _end_ids(settings: Any) -> frozenset[int]:
    own = settings.eos_token_id
    return frozenset(own if isinstance(own, list) else [] if own is None else [own])
