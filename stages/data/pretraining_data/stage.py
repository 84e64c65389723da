"""The pretraining_data stage: as much of a large source of texts as training needs."""

from tunemill.stages.artifacts import Tokenizer, TrainingData
from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.rows.checks import OF_TEXTS
from tunemill.stages.declaration import Input, Stage

PRETRAINING_DATA = Stage(
    name="pretraining_data",
    version=3,
    config=PretrainingDataConfig,
    inputs={"tokenizer": Input(Tokenizer)},
    output=TrainingData,
    body="tunemill.stages.data.pretraining_data.body:pretraining_data",
    kinds=("arrow", "huggingface"),
    description="Texts read from a source as far as max_steps needs them, tokenized and put into sequences.",
    libraries=("numpy", "tokenizers", "transformers"),
    prepares_data=True,
    shows="tunemill.stages.data.rows.shown_body:sequences",
    export="tunemill.stages.data.rows.export_body:export_batch",
    checks=OF_TEXTS,
)
