"""One training run of the resume tests: `python killed_run.py CASE FOLDER KILL`, killed by SIGKILL as KILL says.

`step-N`: when step N is reported. `saving-N`: while checkpoint N is written, before its last file. `seal-N`: when
all of its files are there and only the seal is missing. `evaluation-N`: when step N is scored, before anything is kept
of that. The test module imports `run` to run without a kill.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from support.pairs import echoes, preference_data, reward_data, thanked
from support.rated import rated_data, said_by, unequal
from support.steps import counting, step_data
from support.taught_rows import write_taught
from support.texts import WAYS, alphabets, prepared
from support.tiny_model import (
    Heard,
    evaluation_data,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)

from tunemill.stages.artifacts import Model, PreferenceData, ReferenceLogProbs
from tunemill.stages.report import Report
from tunemill.stages.training.distillation.body import distillation
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.dpo.body import dpo
from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.keys.reference import ReferenceKeys
from tunemill.stages.training.kto.body import kto
from tunemill.stages.training.kto.config import KtoConfig
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.process_reward.body import process_reward
from tunemill.stages.training.process_reward.config import ProcessRewardConfig
from tunemill.stages.training.reference_logprobs.body import reference_logprobs
from tunemill.stages.training.reference_logprobs.config import ReferenceConfig
from tunemill.stages.training.reward.body import reward
from tunemill.stages.training.reward.config import RewardConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.simpo.body import simpo
from tunemill.stages.training.simpo.config import SimpoConfig

STEPS = 20
CASES: dict[str, dict[str, Any]] = {
    # 7 packs, 2 a step: 4 steps an epoch, 5 epochs. A checkpoint after step 6 lies in the middle of epoch 2.
    "lora": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "sample_packing": True, "sequence_len": 48, "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3,
    },
    # 20 rows, 2 by 2 a step: 5 steps an epoch, 4 epochs, the last partly; checkpoints after each.
    # 8 pairs, 2 a step: as above.
    "orpo": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
    },
    "simpo": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
    },
    "simpo-full": {"micro_batch_size": 2, "num_epochs": 5, "save_steps": 3, "weight_decay": 0.1},
    # 8 answers in steps, 2 a step: as above. The head has dropout.
    "steps": {
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
    },
    "steps-lora": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3,
    },
    # 8 judged answers, 2 a step: 4 steps an epoch. Checkpoints after 3, 6, 9, ...
    "kto": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
    },
    "kto-full": {"micro_batch_size": 2, "num_epochs": 5, "save_steps": 3},
    # The reference is stored before, and what it says is in no checkpoint.
    "dpo": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True, "learning_rate": 1e-3,
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
    },
    # The reference is a copy that follows every fourth step: after step 6 it is neither the base nor the model.
    "dpo-full": {
        "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3, "learning_rate": 1e-3, "sync_ref_model": True,
        "ref_model_sync_steps": 4,
    },
    # 8 pairs, 2 a step: as above, of every weight.
    "reward": {
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3,
        "center_rewards_coefficient": 0.01,
    },
    "reward-lora": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3,
    },
    # 16 texts, two in a sequence, 2 sequences a step: 4 steps an epoch. A stream that ends is read again.
    "completion": {
        "sample_packing": True, "sequence_len": 48, "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3,
        "weight_decay": 0.1,
    },
    "pretraining": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "sample_packing": True, "sequence_len": 48, "micro_batch_size": 2, "max_steps": 20, "save_steps": 3,
    },
    # As lora; what the teacher says is read again, and is in no checkpoint.
    "distillation": {
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "lora_target_linear": True,
        "sample_packing": True, "sequence_len": 48, "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3,
        "kd_alpha": 0.9, "kd_ce_alpha": 0.1,
    },
    # 8 rows, 2 a step: 4 steps an epoch. Checkpoints after 3, 6, 9, ...
    "distillation-full": {
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "num_epochs": 5, "save_steps": 3, "kd_beta": 0.5,
        "kd_temperature": 2.0,
    },
    # 8 rows, 2 a step: 4 steps an epoch. Checkpoints after 3, 6, 9, ...; held-out rows decide when it stops.
    "early": {
        "micro_batch_size": 2, "num_epochs": 5, "save_steps": 3, "eval_steps": 1, "lr_scheduler": "constant",
        "warmup_steps": 0, "early_stopping_patience": 5, "load_best_model_at_end": True, "learning_rate": 0.1,
    },
    "full": {
        "micro_batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 4, "neftune_noise_alpha": 5,
        "weight_decay": 0.1, "group_by_length": True,
    },
}  # fmt: skip

# Case -> body and config, of those that learn from pairs.
ON_PAIRS: dict[str, tuple[Any, Any]] = {
    "orpo": (orpo, OrpoConfig),
    "simpo": (simpo, SimpoConfig),
    "simpo-full": (simpo, SimpoConfig),
    "dpo": (dpo, DpoConfig),
    "dpo-full": (dpo, DpoConfig),
}


def run(case: str, folder: Path, report: Report) -> Path:
    """Train one case and return its data folder."""
    torch.set_num_threads(1)
    base = folder.parent / f"{case}-base"
    if not base.exists():
        make_model(base, attention_dropout=0.1)
    settings = {"learning_rate": 1e-2, "logging_steps": 1, "warmup_steps": 3, **CASES[case]}
    out = workspace(folder)
    held_out = (
        evaluation_data(folder.parent / "held-out", random_rows(6, seed=1)) if case == "early" else None
    )
    given = {"base_model": Model(base), "evaluation_data": held_out, "out": out, "report": report}
    if case in ON_PAIRS:
        body, config = ON_PAIRS[case]
        pairs = preference_data(folder.parent / f"{case}-data", echoes()[:8])
        if issubclass(config, ReferenceKeys):
            given["reference_logprobs"] = reference(folder.parent / f"{case}-reference", base, pairs)
        body(config(**settings), training_data=pairs, **given)
    elif case.startswith("steps"):
        steps = step_data(folder.parent / f"{case}-data", counting(8))
        process_reward(ProcessRewardConfig(**settings), training_data=steps, **given)
    elif case.startswith("kto"):
        rows = rated_data(folder.parent / f"{case}-data", unequal(8))
        said = said_by(folder / "said", Model(base), rows, micro_batch_size=settings["micro_batch_size"])
        kto(KtoConfig(**settings), training_data=rows, reference_logprobs=said, **given)
    elif case.startswith("reward"):
        conversations = reward_data(folder.parent / f"{case}-data", thanked(8))
        reward(RewardConfig(**settings), training_data=conversations, **given)
    elif case in WAYS:
        # Prepared anew by each process: a stage writes into an empty folder.
        texts = prepared(case, folder / "texts" / str(os.getpid()), alphabets(16), **settings)
        sft(SftConfig(**settings), training_data=texts, **given)
    else:
        packs = packs_of(20, 3) if settings.get("sample_packing") else None
        rows = random_rows(8 if case in ("early", "distillation-full") else 20)
        data = training_data(folder.parent / f"{case}-data", rows, packs)
        if case.startswith("distillation"):
            said = write_taught(folder.parent / f"{case}-said", rows)
            distillation(DistillationConfig(**settings), training_data=data, teacher_logprobs=[said], **given)
        else:
            sft(SftConfig(**settings), training_data=data, **given)
    return out.data


def reference(folder: Path, base: Path, pairs: PreferenceData) -> ReferenceLogProbs:
    """What the base says of the pairs, computed once."""
    if not folder.exists():
        out = workspace(folder)
        reference_logprobs(ReferenceConfig(), Model(base), pairs, out, Heard().report)
    return ReferenceLogProbs(folder / "data")


def kill_at(kill: str) -> Report:
    """A report that kills this process at a step, or a hook that does so at an opened file."""
    where, _, number = kill.partition("-")

    def emit(event: dict[str, Any]) -> None:
        figure = {"step": "loss", "evaluation": "eval_loss"}.get(where)
        if event["type"] == "step" and event["step"] == int(number) and figure in event["metrics"]:
            os.kill(os.getpid(), signal.SIGKILL)

    last_file = {"saving": "trainer_state.json", "seal": "complete.json.part"}.get(where)

    def on_event(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open" and last_file and str(arguments[0]).endswith(f"checkpoint-{number}/{last_file}"):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)
    return Report(emit)


if __name__ == "__main__":
    case_name, folder_name, kill_name = sys.argv[1:]
    run(case_name, Path(folder_name), kill_at(kill_name) if kill_name else Heard().report)
