"""Trainings that one process and several must do alike: a stage body that does them one after the other.

`train_cases` is launched as any body is, in as many processes as its call says. Of 9 rows, 4 a step, the last step of
each epoch has one micro batch of one row: a second process has nothing in it.
"""

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from support.moe import make_moe
from support.pairs import echoes, preference_data, reward_data, thanked
from support.quantized import make_base, quantized
from support.rated import rated_data, said_by, unequal
from support.steps import counting, step_data
from support.teachers import make_teacher, taught
from support.tiny_model import Heard, evaluation_data, make_model, random_rows, training_data, workspace
from tunemill.stages.artifacts import BaseModel, Model, ReferenceLogProbs
from tunemill.stages.declaration import StageConfig
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.distillation.body import distillation
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.dpo.body import dpo
from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.ipo.body import ipo
from tunemill.stages.training.ipo.config import IpoConfig
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

STEPS, ROWS = 10, 9
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
EACH: dict[str, Any] = {
    "micro_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": STEPS, "learning_rate": 1e-3,
    "logging_steps": 1, "warmup_steps": 2, "save_steps": 4,
}  # fmt: skip
# Two micro batches a step on each of two processes: they are added up in another order than by one.
SFT: dict[str, Any] = {
    "weight_decay": 0.1,
    "micro_batch_size": 1,
    "gradient_accumulation_steps": 4,
    "eval_steps": 5,
}
# Kinds of bases in bits; `stored` is as the Hub has many.
BITS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True},
    "int8": {"load_in_8bit": True},
    "stored": {"load_in_4bit": True, "bnb_config_kwargs": {"bnb_4bit_quant_storage": "uint8"}},
    "packed": {"load_in_4bit": True, "quantize_moe_experts": True},
}
CASES: dict[str, dict[str, Any]] = {
    "sft": SFT,
    "sft-lora": {**LORA, "gradient_checkpointing": True},
    "dpo": {},
    "dpo-lora": LORA,
    # What a model adds to its loss, a loss of its own, one that asks for means of the whole step, a new head.
    "moe": {},
    "eaft": {"use_eaft": True},
    "kto": {},
    "reward": {"center_rewards_coefficient": 0.01},
    # Rows of up to 48 tokens in place of 12, of which two heads share the keys of one.
    "long": SFT,
    "long-lora": {**LORA, "gradient_checkpointing": True},
    "ipo": {},
    "orpo": {},
    "simpo": {},
    "distillation": {"kd_alpha": 0.9, "kd_ce_alpha": 0.1},
    "process": {},
    # A reference that is asked beside each step, and one that follows.
    "live-lora": {**LORA, "precompute_ref_log_probs": False},
    "live-follows": {"sync_ref_model": True, "ref_model_sync_steps": 3},
    # On a frozen base in 4 or 8 bits.
    "nf4": {**LORA, **BITS["nf4"]},
    "int8": {**LORA, **BITS["int8"]},
    "stored": LORA,
    "packed": {**LORA, **BITS["packed"]},
    # Activations wait in files, gradients are filtered.
    "disk": {**SFT, "activation_offloading": "disk"},
    "grokfast": {"plugins": ["grokfast"]},
    "prompts": {
        "adapter": "llama-adapter",
        "peft_adapter": {"layers": 2, "len": 4},
        "learning_rate": 0.1,
    },
    # The adapter starts anew twice.
    "relora": {
        **LORA,
        "relora": True,
        "jagged_restart_steps": 4,
        "optimizer": "adamw_torch",
        "save_steps": 5,
    },
    # Weights are rounded from the fourth step on. A last bit of the gradients' norm would round some the other way.
    "unrounded": {"max_grad_norm": 0},
    "qat": {
        "max_grad_norm": 0,
        "qat": {
            "weight_dtype": "int4",
            "activation_dtype": "int8",
            "group_size": 16,
            "quantize_embedding": False,
            "fake_quant_after_n_steps": 3,
        },
    },
    # Draws at random.
    "dropout": {**LORA, "lora_dropout": 0.3},
    # The first again, that tests kill and let go on.
    "killed": SFT,
    "from_one": SFT,
}
# Methods other than supervised training, by the first word of a case.
METHODS = {
    "dpo": (dpo, DpoConfig), "live": (dpo, DpoConfig), "ipo": (ipo, IpoConfig), "orpo": (orpo, OrpoConfig),
    "simpo": (simpo, SimpoConfig), "kto": (kto, KtoConfig), "reward": (reward, RewardConfig),
    "process": (process_reward, ProcessRewardConfig), "distillation": (distillation, DistillationConfig),
}  # fmt: skip


class CasesConfig(StageConfig):
    """Which cases to train, and how a rank is to fail."""

    cases: list[str] = Field([], description="names of cases")
    processes: int = Field(1, description="how many processes train")
    killed: list[int] = Field(
        [], description="a rank, and the step of the case `killed` at which it kills itself"
    )


def train_cases(config: CasesConfig, out: Workspace, report: Report) -> None:
    """Train each case in a folder of its own below the checkpoints, which all ranks share."""
    torch.set_num_threads(1)
    ranks.meet(60)
    for case in config.cases:
        folder = out.checkpoints / case
        with ranks.first_before_others():
            given = prepared(case, folder / "given")
        # Each writes the same rows anew.
        ranks.wait_for_all()
        mine = workspace(folder / f"rank_{ranks.number()}")
        mine = Workspace(mine.data, workspace(folder / "shared").checkpoints, mine.logs)
        heard = Heard()
        told = Report(partial(tell, heard, config.killed if case == "killed" else []))
        train_case(case, given, mine, told, config.processes)
        summary = {name: heard.summary.get(name) for name in ("processes", "exchanged_by")}
        report.table(case, ["step", "loss"], [[step, loss] for step, loss in heard.steps("loss").items()])
        evals = list(heard.steps("eval_loss").values())
        report.summary(
            **{f"{case}_{name}": value for name, value in summary.items()}, **{f"{case}_evals": evals}
        )
        report.log(f"{case}: {[event['message'] for event in heard.of('log')]}")


def tell(heard: Heard, killed: list[int], event: dict[str, Any]) -> None:
    """Keep what is said; die at the step that is asked for."""
    heard.events.append(event)
    if event["type"] == "step" and killed and [ranks.number(), event["step"]] == killed:
        os.kill(os.getpid(), signal.SIGKILL)


def prepared(case: str, folder: Path) -> dict[str, Any]:
    """The inputs of a case, made once."""
    base, kind = folder / "base", case.partition("-")[0]
    if not base.exists():
        if kind == "moe":
            make_moe("mixtral", base, output_router_logits=True)
        elif kind == "long":
            make_model(base, num_key_value_heads=1)
        elif kind in BITS:
            full = make_base(folder / "full") if kind != "packed" else wide_moe(folder / "full")
            quantized(base, full, **BITS[kind])
        else:
            # The head that judges steps leaves out some of what it reads, which processes draw otherwise than one.
            make_model(base, **({"classifier_dropout": 0.0} if kind == "process" else {}))
    model = Model(base / "data" if kind in BITS else base)
    given = {"base_model": model}
    if kind == "kto":
        rows = rated_data(folder / "rows", unequal(ROWS))
        said = said_by(folder / "said", model, rows, micro_batch_size=2)
        return {**given, "training_data": rows, "reference_logprobs": said}
    if kind in ("dpo", "ipo", "live", "orpo", "simpo"):
        return {**given, **pairs_for(kind, folder, model)}
    if kind == "reward":
        return {**given, "training_data": reward_data(folder / "rows", thanked(ROWS))}
    if kind == "process":
        return {**given, "training_data": step_data(folder / "rows", counting(ROWS, shortest=1))}
    data = training_data(folder / "rows", random_rows(ROWS, longest=48 if kind == "long" else 12))
    if kind == "distillation":
        says = taught(folder / "says", make_teacher(folder / "teacher"), data)
        return {**given, "training_data": data, "teacher_logprobs": [says]}
    held_out = evaluation_data(folder / "held_out", random_rows(5, seed=1))
    return {**given, "training_data": data, "evaluation_data": held_out}


def wide_moe(folder: Path) -> BaseModel:
    """A mixture whose experts can be held in 4 bits."""
    return BaseModel(make_moe("mixtral", folder, hidden_size=64))


def pairs_for(kind: str, folder: Path, model: Model) -> dict[str, Any]:
    """Pairs, and what a reference says of them where a method wants that before."""
    rows = preference_data(folder / "rows", echoes()[:ROWS])
    if kind not in ("dpo", "ipo"):
        return {"training_data": rows}
    written = workspace(folder / "said")
    reference_logprobs(ReferenceConfig(), model, rows, written, Heard().report)
    return {"training_data": rows, "reference_logprobs": ReferenceLogProbs(folder / "said" / "data")}


def train_case(case: str, given: dict[str, Any], out: Workspace, report: Report, processes: int = 1) -> None:
    """Train one case."""
    settings = {**EACH, **CASES[case], "processes": processes}
    body, config = METHODS.get(case.partition("-")[0], (sft, SftConfig))
    body(config(**settings), **{"evaluation_data": None, **given}, out=out, report=report)
