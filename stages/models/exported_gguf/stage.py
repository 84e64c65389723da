"""The `exported_gguf` stage: the finished model, or its adapter, as one file for llama.cpp."""

from tunemill.stages.artifacts import Adapter, GgufModel, Model
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.checks import OF_EXPORTED
from tunemill.stages.models.exported_gguf.config import ExportedGgufConfig

EXPORTED_GGUF = Stage(
    name="exported_gguf",
    version=1,
    config=ExportedGgufConfig,
    inputs={"model": Input(Model), "adapter": Input(Adapter, optional=True)},
    output=GgufModel,
    body="tunemill.stages.models.exported_gguf.body:export",
    kinds=("llama.cpp",),
    description="The model, or its adapter, as one GGUF file for llama.cpp, read back and compared.",
    libraries=("gguf",),
    idle_without="pipeline.export asks for no such file",
    checks=OF_EXPORTED,
)
