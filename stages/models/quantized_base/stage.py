"""The `quantized_base` stage: the frozen base beside an adapter, in 4 or 8 bits."""

from tunemill.stages.artifacts import BaseModel, QuantizedBase
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.checks import OF_QUANTIZED_BASE
from tunemill.stages.models.quantized_base.config import QuantizedBaseConfig

QUANTIZED_BASE = Stage(
    name="quantized_base",
    version=1,
    config=QuantizedBaseConfig,
    inputs={"base_model": Input(BaseModel)},
    output=QuantizedBase,
    body="tunemill.stages.models.quantized_base.body:quantize_base",
    kinds=("pytorch", "huggingface"),
    description="The base in 4 or 8 bits, as bitsandbytes stores it: quantized once, for every adapter on it.",
    libraries=("transformers", "torch", "bitsandbytes", "safetensors"),
    idle_without="the base stays as it is: neither load_in_4bit nor load_in_8bit is set",
    checks=OF_QUANTIZED_BASE,
)
