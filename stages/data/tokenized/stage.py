"""The tokenized stage: rows to token ids and labels."""

from tunemill.stages.artifacts import RawDataset, TokenizedDataset, Tokenizer
from tunemill.stages.data.rows.checks import OF_TOKENS
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.declaration import Input, Stage

TOKENIZED = Stage(
    name="tokenized",
    version=7,
    config=TokenizedConfig,
    inputs={"dataset": Input(RawDataset), "tokenizer": Input(Tokenizer)},
    output=TokenizedDataset,
    body="tunemill.stages.data.tokenized.body:tokenized",
    kinds=("huggingface", "arrow"),
    description="One dataset's rows as token ids and labels, masked by role.",
    libraries=("jinja2", "tokenizers", "transformers"),
    prepares_data=True,
    traces="tunemill.stages.data.rows.trace_body:trace_to_dataset",
    shows="tunemill.stages.data.rows.shown_body:tokenized_rows",
    checks=OF_TOKENS,
)
