"""The `reward_evaluation` stage: which of two held-out conversations a reward model scores higher."""

from tunemill.stages.artifacts import Adapter, Model, PreferenceData, RewardReport
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.evaluation.checks import OF_SCORES
from tunemill.stages.evaluation.rewards.config import RewardEvaluationConfig
from tunemill.stages.evaluation.settings import NOTHING_EVALUATED

REWARD_EVALUATION = Stage(
    name="reward_evaluation",
    version=2,
    config=RewardEvaluationConfig,
    inputs={
        "model": Input(Model),
        "adapter": Input(Adapter, optional=True),
        "evaluation_data": Input(PreferenceData),
    },
    output=RewardReport,
    body="tunemill.stages.evaluation.rewards.body:evaluate",
    kinds=("pytorch",),
    description="Accuracy, margin and loss of a reward model on held-out pairs.",
    libraries=("transformers", "torch", "peft"),
    device="gpu",
    idle_without=NOTHING_EVALUATED,
    checks=OF_SCORES,
)
