"""In which type a model that is trained whole will be stored, going by the keys of training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from tunemill.stages.declaration import Runtime, StageConfig
from tunemill.stages.models.exports import COMPRESSED
from tunemill.stages.models.quantization import QuantizationSettings, is_stored

LOOKED_AT = "formats that are stored of bfloat16 alone are refused of another type: no result depends on it"
AUTO = "is stored of models in bfloat16, and bf16: auto is float32 without a GPU. Set bf16: true"
OTHERWISE = "is stored of models in bfloat16, and weights are trained in float32 here. Set bf16: true"


class TrainedTypeKeys(StageConfig):
    """The precision of training, by the names that training has for it."""

    bf16: Runtime[Literal["auto", "full"] | bool] = Field("auto", description=LOOKED_AT)
    fp16: Runtime[bool] = Field(False, description=LOOKED_AT)
    float32: Runtime[bool] = Field(False, description=LOOKED_AT)
    float16: Runtime[bool] = Field(False, description=LOOKED_AT)
    bfloat16: Runtime[bool] = Field(False, description=LOOKED_AT)
    fp8: Runtime[bool] = Field(False, description=LOOKED_AT)

    @property
    def trained_type(self) -> str | None:
        """The type of what is trained whole, as safetensors names it; None where the machine decides."""
        if self.fp8 or self.bf16 in (True, "full"):
            return "BF16"
        # Under float16's autocast weights are in float32.
        if self.float32 or self.fp16 or self.float16:
            return "F32"
        if self.bfloat16:
            return "BF16"
        return "F32" if self.bf16 is False else None

    def bfloat16_alone(
        self, quantizations: Sequence[QuantizationSettings], exports: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[str, str]]:
        """The formats that are stored of models in bfloat16 alone: the key, and what is asked for."""
        for asked in quantizations:
            if asked.weight_dtype == "mxfp4" and is_stored(asked.weight_dtype, asked.activation_dtype):
                yield asked.key, "weight_dtype: mxfp4"
        if any(one.get("format") == COMPRESSED and one.get("scheme") == "nvfp4" for one in exports):
            yield "exports", "nvfp4"
