"""Which models compressed-tensors can store in a scheme, going by the headers of their files and by config.json."""

import json
from collections.abc import Collection
from pathlib import Path

from tunemill.stages.models.exports import Scheme, group_of
from tunemill.stages.models.heads import head_of_config
from tunemill.stages.models.linear_weights import Kind, Sizes, kinds
from tunemill.stages.models.weights import StoredTensor

SMALLER = {"w4a16": "Set a smaller group_size (32, 64), or use fp8-dynamic", "nvfp4": "Use fp8-dynamic"}


def fault_of_model(folder: Path, scheme: Scheme, group_size: int) -> str | None:
    """Why the model in the folder cannot be exported so."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (head := head_of_config(config)) is not None:
        return f"the model is {head}, and vLLM is given language models. Take this export out"
    if "quantization_config" in config:
        return "the model is quantized already. Start from one in full precision"
    if scheme == "nvfp4" and Sizes.of(folder).dtype != "BF16":
        return (
            "nvfp4 is computed in bfloat16, and this model is in another type. Set bf16: true and train again"
        )
    return fault_of_weights(kinds(folder).values(), scheme, group_size)


def fault_of_weights(
    weights: Collection[tuple[Kind, StoredTensor]], scheme: Scheme, group_size: int
) -> str | None:
    """The same of tensors of these kinds and shapes, whatever their type."""
    if any(kind in ("experts", "router") for kind, _ in weights):
        return (
            "the model is a mixture of experts, of which llm-compressor 0.14 writes files that transformers reads "
            "as another model, without the experts' scales, so nothing could be proven of them. Use quantization: "
            "{weight_dtype: fp8}, or give vLLM the model as it is"
        )
    group = group_of(scheme, group_size)
    for kind, tensor in weights:
        if kind == "linear" and group is not None and tensor.shape[1] % group:
            return (
                f"{tensor.name} has {tensor.shape[1]} inputs, of which {group} at a time share a scale: that does not "
                f"divide. {SMALLER[scheme]}"
            )
    return None
