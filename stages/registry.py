"""Every stage there is, and the methods of training by their names. What is needed of one is in `named.py`."""

from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.data.held_out_preferences.stage import HELD_OUT_PREFERENCES
from tunemill.stages.data.leakage.stage import LEAKAGE
from tunemill.stages.data.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.data.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.data.prompt_data.stage import PROMPT_DATA
from tunemill.stages.data.prompts.stage import PROMPTS
from tunemill.stages.data.stored_logprobs.stage import STORED_LOGPROBS
from tunemill.stages.data.synthetic.stage import SYNTHETIC
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.declaration import Stage
from tunemill.stages.evaluation.answers.stage import EVALUATION
from tunemill.stages.evaluation.generations.stage import GENERATIONS
from tunemill.stages.evaluation.held_out_loss.stage import HELD_OUT_LOSS
from tunemill.stages.evaluation.inspect_task.stage import INSPECT_EVALUATION
from tunemill.stages.evaluation.judgements.stage import JUDGEMENTS
from tunemill.stages.evaluation.lm_eval_tasks.stage import HARNESS_EVALUATION
from tunemill.stages.evaluation.named_task.stage import TASK_EVALUATION
from tunemill.stages.evaluation.preferences.stage import PREFERENCE_EVALUATION
from tunemill.stages.evaluation.rewards.stage import REWARD_EVALUATION
from tunemill.stages.evaluation.scores.stage import SCORES
from tunemill.stages.evaluation.steps.stage import STEP_EVALUATION
from tunemill.stages.models.base_model.stage import BASE_MODEL
from tunemill.stages.models.exported_compressed.stage import EXPORTED_COMPRESSED
from tunemill.stages.models.exported_gguf.stage import EXPORTED_GGUF
from tunemill.stages.models.hub_files.stage import HUB_FILES
from tunemill.stages.models.merged.stage import MERGED
from tunemill.stages.models.published.stage import PUBLISHED
from tunemill.stages.models.quantized.stage import QUANTIZED
from tunemill.stages.models.quantized_base.stage import QUANTIZED_BASE
from tunemill.stages.training.distillation.stage import DISTILLATION
from tunemill.stages.training.dpo.stage import DPO
from tunemill.stages.training.ebft.stage import EBFT
from tunemill.stages.training.gdpo.stage import GDPO
from tunemill.stages.training.grpo.stage import GRPO
from tunemill.stages.training.ipo.stage import IPO
from tunemill.stages.training.kto.stage import KTO
from tunemill.stages.training.orpo.stage import ORPO
from tunemill.stages.training.process_reward.stage import PROCESS_REWARD
from tunemill.stages.training.reference_logprobs.stage import REFERENCE_LOGPROBS
from tunemill.stages.training.reward.stage import REWARD
from tunemill.stages.training.sft.stage import SFT
from tunemill.stages.training.simpo.stage import SIMPO
from tunemill.stages.training.teacher_logprobs.stage import TEACHER_LOGPROBS

METHODS: dict[str, Stage] = {
    "sft": SFT,
    "simpo": SIMPO,
    "orpo": ORPO,
    "dpo": DPO,
    "ipo": IPO,
    "reward": REWARD,
    "process_reward": PROCESS_REWARD,
    "kto": KTO,
    "distillation": DISTILLATION,
    "grpo": GRPO,
    "gdpo": GDPO,
    "ebft": EBFT,
}

# The methods that learn from what the model itself samples.
ONLINE = frozenset({GRPO.name, GDPO.name, EBFT.name})

# What estimates the memory of a stage, by its name: of any training, and of a teacher's pass; called as a body is.
MEMORY: dict[str, str] = {
    **dict.fromkeys(METHODS.keys() - ONLINE, "tunemill.stages.training.estimate_body:estimate"),
    **dict.fromkeys(ONLINE, "tunemill.stages.training.online.estimate_body:estimate"),
    TEACHER_LOGPROBS.name: "tunemill.stages.training.teacher_estimate_body:estimate",
}

STAGES: tuple[Stage, ...] = (
    DATASET,
    TOKENIZER,
    TOKENIZED,
    SYNTHETIC,
    TRAINING_DATA,
    EVALUATION_DATA,
    LEAKAGE,
    PRETRAINING_DATA,
    PREFERENCES,
    PREFERENCE_DATA,
    HELD_OUT_PREFERENCES,
    PROMPTS,
    PROMPT_DATA,
    STORED_LOGPROBS,
    HUB_FILES,
    BASE_MODEL,
    QUANTIZED_BASE,
    REFERENCE_LOGPROBS,
    TEACHER_LOGPROBS,
    *METHODS.values(),
    MERGED,
    QUANTIZED,
    EXPORTED_GGUF,
    EXPORTED_COMPRESSED,
    PUBLISHED,
    EVALUATION,
    PREFERENCE_EVALUATION,
    STEP_EVALUATION,
    REWARD_EVALUATION,
    HARNESS_EVALUATION,
    TASK_EVALUATION,
    INSPECT_EVALUATION,
    GENERATIONS,
    JUDGEMENTS,
    SCORES,
    HELD_OUT_LOSS,
)
