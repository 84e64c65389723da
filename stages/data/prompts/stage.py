"""The prompts stage: rows to prompts that a model is to answer."""

from tunemill.stages.artifacts import Prompts, RawDataset, Tokenizer
from tunemill.stages.data.prompts.config import PromptsConfig
from tunemill.stages.declaration import Input, Stage

PROMPTS = Stage(
    name="prompts",
    version=2,
    config=PromptsConfig,
    inputs={"dataset": Input(RawDataset), "tokenizer": Input(Tokenizer)},
    output=Prompts,
    body="tunemill.stages.data.prompts.body:prompts",
    kinds=("huggingface", "arrow"),
    description="One dataset's rows as prompts, with the columns that rewards are given.",
    libraries=("jinja2", "tokenizers", "transformers"),
    prepares_data=True,
    traces="tunemill.stages.data.rows.trace_body:trace_to_dataset",
)
