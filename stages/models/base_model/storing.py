"""Which of the formats that a pipeline stores its model in the base model stands in the way of, going by its files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunemill.stages.declaration import Fault
from tunemill.stages.models.base_model.layers import readable_tensors
from tunemill.stages.models.compressed_fit import fault_of_weights
from tunemill.stages.models.exports import COMPRESSED, CompressedExport
from tunemill.stages.models.linear_weights import DTYPES, Sizes, kind_of
from tunemill.stages.models.quantization import (
    QuantizationSettings,
    fault_of_embedding,
    fault_of_size,
)

NAMES = {stored: name for name, stored in DTYPES.items()}


def faults_of_storing(
    folder: Path,
    quantizations: Sequence[QuantizationSettings],
    exports: Sequence[Mapping[str, Any]],
    *,
    keeps_type: bool,
) -> Iterator[Fault]:
    """What cannot be stored as it is asked for, going by sizes and type of the weights in a model folder.

    `keeps_type`: whether the model that is stored has the type of this one: one that an adapter is folded into has.
    """
    sizes = Sizes.of(folder)
    dtype = sizes.dtype if keeps_type else "BF16"
    weights = [(kind_of(tensor, sizes), tensor) for tensor in readable_tensors(folder).values()]
    for asked in quantizations:
        reasons = (
            fault_of_size(asked, tensor.name.removesuffix(".weight"), *tensor.shape)
            for kind, tensor in weights
            if kind == "linear"
        )
        tables = [tensor for kind, tensor in weights if kind == "embedding" and asked.quantize_embedding]
        of_tables = (fault_of_embedding(asked, tensor.shape[1]) for tensor in tables)
        reason = next(filter(None, (*reasons, *of_tables)), None)
        if reason is None and asked.weight_dtype == "mxfp4" and dtype != "BF16":
            reason = f"weight_dtype: mxfp4 is stored of models in bfloat16, and {_is_in(dtype)}, or use nvfp4"
        if reason is not None:
            yield Fault(asked.key, reason)
    for export in exports:
        if export.get("format") == COMPRESSED:
            wanted = CompressedExport.model_validate(export)
            reason = fault_of_weights(weights, wanted.scheme, wanted.group_size)
            if reason is None and wanted.scheme == "nvfp4" and dtype != "BF16":
                reason = f"it is computed in bfloat16, and {_is_in(dtype)}, or use another scheme"
            if reason is not None:
                yield Fault("exports", f"{wanted.scheme}: {reason}")


def _is_in(dtype: str | None) -> str:
    named = "names no type in its config.json" if dtype is None else f"is in {NAMES[dtype]}"
    return (
        f"the base, whose type the model with the adapter folded in has, {named}. Start from one in bfloat16"
    )
