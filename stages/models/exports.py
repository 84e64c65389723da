"""`pipeline.export`: in which files of other engines the finished model is given away."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from tunemill.stages.declaration import Settings

# Types that the package gguf writes, and those that llama.cpp's own llama-quantize makes.
PlainType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "mxfp4"]
KType = Literal["q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m", "q5_k_s", "q5_k_m", "q6_k"]
# llama.cpp multiplies the factors of an adapter as they are.
ADAPTER_TYPES = ("f32", "f16", "bf16")
Exported = Literal["model", "adapter"]
# How compressed-tensors stores weights, and those for which rows of the training data are looked at.
Scheme = Literal["fp8-dynamic", "w4a16", "w8a8", "nvfp4"]
CALIBRATED: tuple[Scheme, ...] = ("w4a16", "w8a8", "nvfp4")
# Inputs that share a scale, for which vLLM has products.
Group = Literal[32, 64, 128]
NVFP4_GROUP = 16


def group_of(scheme: Scheme, group_size: int) -> int | None:
    """Inputs that share a scale; None: all of a row."""
    return {"w4a16": group_size, "nvfp4": NVFP4_GROUP}.get(scheme)


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
    def calibrated(self) -> bool:
        """Whether rows of the training data are looked at."""
        return False

    @property
    def node(self) -> str:
        """The name of the node that makes it."""
        return f"exported_gguf_{'adapter_' if self.of == 'adapter' else ''}{self.type}"


class CompressedExport(Settings):
    """One folder for vLLM, which stock transformers loads too where compressed-tensors is installed."""

    of: ClassVar[Exported] = "model"

    format: Literal["compressed-tensors"] = Field(description="compressed-tensors: for vLLM")
    scheme: Scheme = Field(
        description="how weights and the inputs of products are stored: fp8-dynamic: both in float8; w8a8: both in "
        "int8; w4a16: weights in int4, inputs as they are; nvfp4: both in 4-bit floats"
    )
    group_size: Group = Field(128, description="w4a16: how many inputs of a row share a scale")
    calibration_rows: PositiveInt = Field(
        512, description="all but fp8-dynamic: how many rows of the training data are looked at"
    )
    seed: NonNegativeInt = Field(0, description="all but fp8-dynamic: which rows these are")

    @model_validator(mode="after")
    def _settings_fit(self) -> "CompressedExport":
        if "group_size" in self.model_fields_set and self.scheme != "w4a16":
            raise ValueError(
                f"group_size: {self.scheme} has groups of its own. Take it out, or use scheme: w4a16"
            )
        for key in ("calibration_rows", "seed"):
            if key in self.model_fields_set and not self.calibrated:
                raise ValueError(f"{key}: {self.scheme} looks at no rows. Take it out")
        return self

    @property
    def calibrated(self) -> bool:
        """Whether rows of the training data are looked at."""
        return self.scheme in CALIBRATED

    @property
    def node(self) -> str:
        """The name of the node that makes it."""
        return f"exported_compressed_{self.scheme.replace('-', '_')}"


GGUF, COMPRESSED = "gguf", "compressed-tensors"


def _format_of(export: object) -> str | None:
    return export.get("format") if isinstance(export, dict) else getattr(export, "format", None)


def _has_format(export: object) -> object:
    if _format_of(export) not in (GGUF, COMPRESSED):
        raise ValueError(f"needs a format: {GGUF}, for llama.cpp, or {COMPRESSED}, for vLLM")
    return export


Export = Annotated[
    Annotated[GgufExport, Tag(GGUF)] | Annotated[CompressedExport, Tag(COMPRESSED)],
    Discriminator(_format_of),
    BeforeValidator(_has_format),
]


def conflict_of_exports(
    exports: Sequence[Export],
    *,
    adapter: str | None,
    merges: bool,
    head: str | None,
    rows_of_tokens: bool = True,
) -> str | None:
    """Why these exports cannot be made in a pipeline with this kind of adapter, which may be folded in or not.

    `head`: the key that asks for a model that scores. `rows_of_tokens`: whether that is what is trained on.
    """
    names = [export.node for export in exports]
    if again := next((name for index, name in enumerate(names) if name in names[:index]), None):
        return f"{again} is asked for twice. Take one out"
    if exports and head is not None:
        return f"{head}: the model scores, and is no language model that other engines read. Take export out"
    for export in exports:
        if isinstance(export, CompressedExport) and export.calibrated and not rows_of_tokens:
            return (
                f"scheme: {export.scheme} looks at rows of the training data, and these are pairs or judged answers. "
                f"Use fp8-dynamic, which looks at none"
            )
        if export.of == "adapter" and adapter != "lora":
            return (
                f"of: adapter takes adapter: lora, and adapter is {adapter or 'unset'}. Take `of` out, so that the "
                f"whole model is exported"
            )
        if export.of == "model" and adapter is not None and not merges:
            return f"adapter: {adapter} changes no weight, so there is no model to export but its base. Take it out"
    return None
