"""The `quantized` stage: post-training quantization with torchao."""

from tunemill.stages.artifacts import EvaluationData, Model, QuantizedModel
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.checks import OF_QUANTIZED
from tunemill.stages.models.quantized.config import QuantizedConfig

LOOKED_AT = "the quantized model is compared with the one before on them, and stays as it is"

QUANTIZED = Stage(
    name="quantized",
    version=2,
    config=QuantizedConfig,
    inputs={
        "model": Input(Model),
        "evaluation_data": Input(EvaluationData, optional=True, runtime=LOOKED_AT),
    },
    output=QuantizedModel,
    body="tunemill.stages.models.quantized.body:quantize",
    kinds=("pytorch", "huggingface"),
    description="Weights in 8 or 4 bits, loadable by stock transformers, and proven to be.",
    libraries=("transformers", "torch", "torchao"),
    checks=OF_QUANTIZED,
)
