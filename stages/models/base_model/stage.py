"""The `base_model` stage: the model that training starts from, fitted to its tokenizer."""

from tunemill.stages.artifacts import BaseModel, FetchedModel, Model, Tokenizer
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.base_model.config import BaseModelConfig

BASE_MODEL = Stage(
    name="base_model",
    version=2,
    config=BaseModelConfig,
    inputs={
        "tokenizer": Input(Tokenizer),
        "upstream": Input(Model, optional=True),
        "config_files": Input(FetchedModel, optional=True),
    },
    output=BaseModel,
    body="tunemill.stages.models.base_model.body:base_model",
    kinds=("huggingface",),
    description="Weights, config and tokenizer in one folder; embeddings as long as the tokenizer.",
    libraries=("transformers", "torch", "safetensors"),
)
