"""Which models can be exported in a scheme, going by the headers of their files and by config.json."""

import json
from pathlib import Path

from tunemill.stages.models.exported_compressed.layout import group_of
from tunemill.stages.models.exports import Scheme
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.linear_weights import Sizes, kinds

SMALLER = {"w4a16": "Set a smaller group_size (32, 64), or use fp8-dynamic", "nvfp4": "Use fp8-dynamic"}


def fault_of_model(folder: Path, scheme: Scheme, group_size: int) -> str | None:
    """Why the model in the folder cannot be exported so."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (head := head_of_config(config)) is not None:
        return f"the model is {head}, and vLLM is given language models. Take this export out"
    if "quantization_config" in config:
        return "the model is quantized already. Start from one in full precision"
    tensors = kinds(folder).values()
    if any(kind in ("experts", "router") for kind, _ in tensors):
        return (
            "the model is a mixture of experts, of which llm-compressor 0.14 writes files that transformers reads "
            "as another model. Use quantization: {weight_dtype: fp8}, or give vLLM the model as it is"
        )
    if scheme == "nvfp4" and Sizes.of(folder).dtype != "BF16":
        return (
            "nvfp4 is computed in bfloat16, and this model is in another type. Set bf16: true and train again"
        )
    group = group_of(scheme, group_size)
    for kind, tensor in tensors:
        if kind == "linear" and group is not None and tensor.shape[1] % group:
            return (
                f"{tensor.name} has {tensor.shape[1]} inputs, of which {group} at a time share a scale: that does not "
                f"divide. {SMALLER[scheme]}"
            )
    return None
