"""The `exported_compressed` stage: the finished model, quantized for vLLM by llm-compressor."""

from tunemill.stages.artifacts import CompressedModel, EvaluationData, Model, TrainingData
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.checks import OF_EXPORTED
from tunemill.stages.models.exported_compressed.config import ExportedCompressedConfig

LOOKED_AT = "the exported model is compared with the one before on them, and stays as it is"

EXPORTED_COMPRESSED = Stage(
    name="exported_compressed",
    version=1,
    config=ExportedCompressedConfig,
    inputs={
        "model": Input(Model),
        "training_data": Input(TrainingData, optional=True),
        "evaluation_data": Input(EvaluationData, optional=True, runtime=LOOKED_AT),
    },
    output=CompressedModel,
    body="tunemill.stages.models.exported_compressed.body:export",
    kinds=("vllm",),
    description="The model quantized for vLLM by compressed-tensors, read back and compared.",
    libraries=("transformers", "torch", "llmcompressor", "compressed-tensors"),
    idle_without="pipeline.export asks for no such model",
    checks=OF_EXPORTED,
)
