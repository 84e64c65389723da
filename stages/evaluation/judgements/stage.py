"""The `judgements` stage: what a language model behind an endpoint says of stored answers."""

from tunemill.stages.artifacts import Generations, Judgements
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_JUDGEMENTS
from tunemill.stages.evaluation.judgements.config import JudgementsConfig

JUDGEMENTS = Stage(
    name="judgements",
    version=1,
    config=JudgementsConfig,
    inputs={"generations": Input(Generations)},
    output=Judgements,
    body="tunemill.stages.evaluation.judgements.body:judge",
    kinds=("python",),
    description="Verdicts of a judge on answers; no question is asked twice.",
    keeps="answers of an endpoint to questions: each file holds one question, with all that was sent, and the answer",
    checks=OF_JUDGEMENTS,
)
