"""What the `exported_gguf` stage is asked for by an entry of `pipeline.export`."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Self, get_args

from pydantic import Field, model_validator

from tunemill.stages.declaration import ConflictError, Fault, GraphMark, Runtime, StageConfig
from tunemill.stages.models.exports import Exported, KType, PlainType

# The tool of llama.cpp that makes types with a k.
LLAMA_QUANTIZE = "llama-quantize"
# Parts of an adapter that llama.cpp does not load beside a base.
PARTS = ("peft_use_dora", "lora_modules_to_save", "lora_target_parameters", "peft_trainable_token_indices")
BESIDE = "an adapter with such parts is not exported by itself: no result depends on it"


@cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


class ExportedGgufConfig(StageConfig):
    """Of what the file is, and in which type."""

    type: Annotated[PlainType | KType, GraphMark()] = Field(description="how weights are stored")
    of: Annotated[Exported, GraphMark()] = Field("model", description="the whole model, or its adapter alone")

    peft_use_dora: Runtime[bool] = Field(False, description=BESIDE)
    lora_modules_to_save: Runtime[list[str] | None] = Field(None, description=BESIDE)
    lora_target_parameters: Runtime[list[str] | str | None] = Field(None, description=BESIDE)
    peft_trainable_token_indices: Runtime[list[int] | dict[str, list[int]] | None] = Field(
        None, description=BESIDE
    )

    @model_validator(mode="after")
    def _llama_cpp_loads_the_adapter(self) -> Self:
        asked = [key for key in PARTS if getattr(self, key)]
        if self.of == "adapter" and asked:
            raise ConflictError(
                f"of: adapter: llama.cpp loads no adapter with what {asked[0]} trains beside a base. Take `of` out, so "
                f"that the whole model is exported",
                "of",
            )
        return self

    @property
    def made_by_llama_cpp(self) -> bool:
        """Whether llama.cpp's own tool stores the weights."""
        return self.type in get_args(KType)

    def used_tools(self) -> Mapping[str, str]:
        """llama.cpp's own tool, by its bytes: it says its version only when it works, and has that in it."""
        if not self.made_by_llama_cpp:
            return super().used_tools()
        found = shutil.which(LLAMA_QUANTIZE)
        return {LLAMA_QUANTIZE: "not installed" if found is None else _digest(Path(found).resolve())}

    def faults(self) -> Iterator[Fault]:
        """A tool that is not there."""
        yield from super().faults()
        if self.made_by_llama_cpp and shutil.which(LLAMA_QUANTIZE) is None:
            yield Fault(
                "type",
                f"{self.type} is made by {LLAMA_QUANTIZE}, which is not on PATH. Install llama.cpp (brew install "
                f"llama.cpp, or build its target {LLAMA_QUANTIZE}), or take q8_0 or q4_0, which need nothing",
            )
