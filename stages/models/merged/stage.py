"""The `merged` stage: an adapter folded into its base model."""

from tunemill.stages.artifacts import Adapter, Model, QuantizedBase
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.checks import OF_MERGED
from tunemill.stages.models.merged.config import MergedConfig

MERGED = Stage(
    name="merged",
    version=3,
    config=MergedConfig,
    inputs={
        "base_model": Input(Model),
        "quantized_base": Input(QuantizedBase, optional=True),
        "adapter": Input(Adapter),
    },
    output=Model,
    body="tunemill.stages.models.merged.body:merge",
    kinds=("pytorch", "huggingface"),
    description="The adapter folded into the base, tensor by tensor, and compared with it.",
    libraries=("transformers", "torch", "peft", "safetensors"),
    idle_without="there is no adapter to merge, or none that can be",
    checks=OF_MERGED,
)
