"""The `stored_logprobs` stage: a teacher's log-probabilities that lie beside the rows of a dataset."""

from tunemill.stages.artifacts import RawDataset, TeacherLogProbs, TokenizedDataset, Tokenizer
from tunemill.stages.data.rows.checks import OF_FILE
from tunemill.stages.data.stored_logprobs.config import StoredLogprobsConfig
from tunemill.stages.declaration import Input, Stage

STORED_LOGPROBS = Stage(
    name="stored_logprobs",
    version=1,
    config=StoredLogprobsConfig,
    inputs={
        "dataset": Input(RawDataset),
        "tokenized": Input(TokenizedDataset),
        "tokenizer": Input(Tokenizer),
    },
    output=TeacherLogProbs,
    body="tunemill.stages.data.stored_logprobs.body:stored_logprobs",
    kinds=("arrow",),
    description="Log-probabilities of a teacher in the rows of a dataset, token by token.",
    prepares_data=True,
    checks=OF_FILE,
)
