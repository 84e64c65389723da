"""`pipeline.export`: in which files of other engines the finished model is given away."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tunemill.stages.declaration import Settings

# Types that the package gguf writes, and those that llama.cpp's own llama-quantize makes.
PlainType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "mxfp4"]
KType = Literal["q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"]
# llama.cpp multiplies the factors of an adapter as they are.
ADAPTER_TYPES = ("f32", "f16", "bf16")
Exported = Literal["model", "adapter"]


class GgufExport(Settings):
    """One file for llama.cpp and what is built on it."""

    format: Literal["gguf"] = Field(description="gguf: for llama.cpp, and what is built on it")
    type: PlainType | KType = Field(
        description="how weights are stored; the types with a k are made by llama.cpp's llama-quantize"
    )
    of: Exported = Field(
        "model",
        description="model: what was trained, with its adapter folded in; adapter: the adapter alone, which llama.cpp "
        "loads beside its base",
    )

    @model_validator(mode="after")
    def _adapters_are_whole(self) -> "GgufExport":
        if self.of == "adapter" and self.type not in ADAPTER_TYPES:
            raise ValueError(
                f"type: {self.type} is none of an adapter, whose factors are stored as they are. Use "
                f"{', '.join(ADAPTER_TYPES)}"
            )
        return self

    @property
    def node(self) -> str:
        """The name of the node that makes it."""
        return f"exported_gguf_{'adapter_' if self.of == 'adapter' else ''}{self.type}"


Export = Annotated[GgufExport, Field()]


def conflict_of_exports(
    exports: Sequence[Export], *, adapter: str | None, merges: bool, head: str | None
) -> str | None:
    """Why these exports cannot be made in a pipeline with this kind of adapter, which may be folded in or not.

    `head`: the key that asks for a model that scores.
    """
    names = [export.node for export in exports]
    if again := next((name for index, name in enumerate(names) if name in names[:index]), None):
        return f"{again} is asked for twice. Take one out"
    if exports and head is not None:
        return f"{head}: the model scores, and is no language model that other engines read. Take export out"
    for export in exports:
        if export.of == "adapter" and adapter != "lora":
            return (
                f"of: adapter takes adapter: lora, and adapter is {adapter or 'unset'}. Take `of` out, so that the "
                f"whole model is exported"
            )
        if export.of == "model" and adapter is not None and not merges:
            return f"adapter: {adapter} changes no weight, so there is no model to export but its base. Take it out"
    return None
