"""The tokenized stage: rows to token ids and labels."""

from tunemill.stages.artifacts import RawDataset, TokenizedDataset, Tokenizer
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.tokenized.config import TokenizedConfig
from tunemill.stages.tokenized.synthetic_config import SyntheticConfig

TOKENIZED = Stage(
    name="tokenized",
    version=2,
    config=TokenizedConfig,
    inputs={"dataset": Input(RawDataset), "tokenizer": Input(Tokenizer)},
    output=TokenizedDataset,
    body="tunemill.stages.tokenized.body:tokenized",
    kinds=("huggingface", "arrow"),
    description="One dataset's rows as token ids and labels, masked by role.",
    libraries=("jinja2", "tokenizers", "transformers"),
)

# Instead of both the dataset and the tokenized stage, where `type: _synthetic` asks for rows that are made up.
SYNTHETIC = Stage(
    name="synthetic",
    version=1,
    config=SyntheticConfig,
    inputs={"tokenizer": Input(Tokenizer)},
    output=TokenizedDataset,
    body="tunemill.stages.tokenized.synthetic_body:synthetic",
    kinds=("arrow",),
    description="Rows of random tokens, for benchmarks and tests.",
    libraries=("numpy", "transformers"),
)
