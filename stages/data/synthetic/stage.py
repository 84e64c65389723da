"""The synthetic stage: made up rows (`type: _synthetic`), in place of the dataset and the tokenized stage."""

from tunemill.stages.artifacts import TokenizedDataset, Tokenizer
from tunemill.stages.data.synthetic.config import SyntheticConfig
from tunemill.stages.declaration import Input, Stage

SYNTHETIC = Stage(
    name="synthetic",
    version=1,
    config=SyntheticConfig,
    inputs={"tokenizer": Input(Tokenizer)},
    output=TokenizedDataset,
    body="tunemill.stages.data.synthetic.body:synthetic",
    kinds=("arrow",),
    description="Rows of random tokens, for benchmarks and tests.",
    libraries=("numpy", "transformers"),
    prepares_data=True,
    shows="tunemill.stages.data.rows.shown_body:tokenized_rows",
)
