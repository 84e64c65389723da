"""The `quantized` stage: post-training quantization with torchao."""

from tunemill.stages.artifacts import Model, QuantizedModel
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.quantized.config import QuantizedConfig

QUANTIZED = Stage(
    name="quantized",
    version=1,
    config=QuantizedConfig,
    inputs={"model": Input(Model)},
    output=QuantizedModel,
    body="tunemill.stages.models.quantized.body:quantize",
    kinds=("pytorch", "huggingface"),
    description="Weights of linear modules in int8, loadable by stock transformers.",
    libraries=("transformers", "torch", "torchao"),
)
