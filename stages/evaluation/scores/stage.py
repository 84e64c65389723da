"""The `scores` stage: figures of answers that were generated before, without a model."""

from tunemill.stages.artifacts import EvaluationData, Generations, Judgements, RawDataset, ScoresReport
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.scores.config import ScoresConfig

SCORES = Stage(
    name="scores",
    version=1,
    config=ScoresConfig,
    inputs={
        "generations": Input(Generations),
        "judgements": Input(Judgements, optional=True),
        "dataset": Input(RawDataset, optional=True),
        "evaluation_data": Input(EvaluationData, optional=True),
    },
    output=ScoresReport,
    body="tunemill.stages.evaluation.scores.body:score",
    kinds=("python",),
    description="Metrics of answers that are stored: another metric generates no token.",
    checks=OF_SCORES,
)
