"""The tokenizer stage: one tokenizer for every dataset and for the trained model."""

from tunemill.stages.artifacts import Model, Tokenizer
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.declaration import Input, Stage

TOKENIZER = Stage(
    name="tokenizer",
    version=4,
    config=TokenizerConfig,
    inputs={"upstream": Input(Model, optional=True), "tokenizer_files": Input(Tokenizer, optional=True)},
    output=Tokenizer,
    body="tunemill.stages.data.tokenizer.body:tokenizer",
    kinds=("huggingface",),
    description="The base model's tokenizer with the added tokens and the chosen chat template.",
    libraries=("tokenizers", "transformers"),
    prepares_data=True,
    shown_as="nothing",
)
