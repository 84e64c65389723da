"""What the `exported_gguf` stage is asked for by an entry of `pipeline.export`."""

import shutil
from collections.abc import Iterator
from typing import Annotated, get_args

from pydantic import Field

from tunemill.stages.declaration import Fault, GraphMark, StageConfig
from tunemill.stages.models.exports import Exported, KType, PlainType

# The tool of llama.cpp that makes types with a k.
LLAMA_QUANTIZE = "llama-quantize"


class ExportedGgufConfig(StageConfig):
    """Of what the file is, and in which type."""

    type: Annotated[PlainType | KType, GraphMark()] = Field(description="how weights are stored")
    of: Annotated[Exported, GraphMark()] = Field("model", description="the whole model, or its adapter alone")

    @property
    def made_by_llama_cpp(self) -> bool:
        """Whether llama.cpp's own tool stores the weights."""
        return self.type in get_args(KType)

    def faults(self) -> Iterator[Fault]:
        """A tool that is not there."""
        yield from super().faults()
        if self.made_by_llama_cpp and shutil.which(LLAMA_QUANTIZE) is None:
            yield Fault(
                "type",
                f"{self.type} is made by {LLAMA_QUANTIZE}, which is not on PATH. Install llama.cpp (brew install "
                f"llama.cpp, or build its target {LLAMA_QUANTIZE}), or take q8_0 or q4_0, which need nothing",
            )
