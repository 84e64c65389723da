"""Reading a folder whose weights are quantized in a way that is only computed with, as numbers in 16 bits."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from tunemill.stages.errors import SourceError
from tunemill.stages.models.files import forget_versions
from tunemill.stages.models.generation_body import keep_generation, set_generation_aside
from tunemill.stages.models.weights import tensors_of_model


def write_unpacked(folder: Path, kind: str, rows: int, mean: bool, target: Path) -> None:
    """Write the model in bfloat16, with at least `rows` embedding rows; new ones are drawn around the `mean`.

    `kind` is the class in transformers that reads such weights. Raises SourceError where they cannot be read.
    """
    settings = getattr(transformers, kind)(dequantize=True)
    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=settings,
        dtype=torch.bfloat16,
        device_map={"": "cpu"},
        output_loading_info=True,
    )
    odd = sorted({*info["missing_keys"], *info["unexpected_keys"], *map(str, info["mismatched_keys"])})
    if odd:
        raise SourceError(
            f"base_model: {folder}: {len(odd)} tensors are not those of its config, such as {odd[0]}. Fetch it again."
        )
    if rows > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows, mean_resizing=mean)
    set_generation_aside(model)
    # The names that the files had are those of quantized weights.
    model.save_pretrained(target, save_original_format=False)
    forget_versions(target)
    keep_generation(folder, target)
    _check_written(model, target)


def _check_written(model: Any, target: Path) -> None:
    written, tied = tensors_of_model(target), set(model.all_tied_weights_keys)
    missing = sorted(name for name, _ in model.named_parameters() if name not in written and name not in tied)
    assert not missing, f"not written: {missing[:3]}"
