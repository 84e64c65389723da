"""Online trainings that one process and several must do alike: a stage body that does them one after the other.

A round has 4 groups of 2 completions, sampled in two parts; a step learns from all of it, in two micro batches.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from support.environments import caller, environment_file, playing_file, prompts_of
from support.online import prompt_data, rewards_file, settings_for, words_to_sort
from support.ranks_cases import tell
from support.tiny_model import Heard, make_model, workspace
from tunemill.stages.artifacts import Model, PromptData
from tunemill.stages.declaration import StageConfig
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.ebft.body import ebft
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.learning_body import learn

STEPS = 6
EACH: dict[str, Any] = {
    "num_generations": 2, "micro_batch_size": 4, "gradient_accumulation_steps": 2, "completions_at_once": 4,
    "max_steps": STEPS, "save_steps": 3, "reward_funcs": ["letters.varied"],
}  # fmt: skip
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
CASES: dict[str, dict[str, Any]] = {
    # Rounds of two steps, each of which is learned from twice, beside the model that training starts from.
    "full": {"beta": 0.1, "num_iterations": 2, "steps_per_generation": 4, "sync_ref_model": True,
             "ref_model_sync_steps": 2},
    "lora": {**LORA, "beta": 0.1, "gradient_checkpointing": True, "eval_steps": 3},
    # Half of the groups have no advantage, so micro batches are skipped: those of a word with an a.
    "level": {"reward_funcs": ["letters.half"], "micro_batch_size": 2, "gradient_accumulation_steps": 4},
    # Rounds ahead, groups that are learned from again, prompts that are asked again, rewards as soon as possible.
    "ahead": {
        "async_prefetch": True, "prefetch_depth": 2, "replay_buffer_size": 4, "reroll_start_fraction": 0.2,
        "streaming_partial_batch": True, "streaming_min_groups": 1, "reward_funcs": ["letters.half"],
    },
    "ebft": {"ce_coef": 0.1, "use_whitening": True},
    # Of what is cut off nothing is learned, and that is all.
    "masked": {"mask_truncated_completions": True, "max_completion_length": 1},
    # A function that draws by torch's own numbers.
    "played": {"rollout_func": "playing.drawn"},
    "killed": {},
    "whole": {},
    "wrong": {"reward_funcs": ["letters.wrong"]},
}  # fmt: skip
# Those whose completions call tools, of another model.
CALLING: dict[str, dict[str, Any]] = {
    "called": {"tools": ["counting.double"], **LORA},
    "called_ahead": {
        "async_prefetch": True, "prefetch_depth": 2, "replay_buffer_size": 4, "streaming_partial_batch": True,
        "streaming_min_groups": 1,
    },
    # By a server of vLLM, while steps are taken.
    "served": {"use_vllm": True, "async_prefetch": True, **LORA},
}  # fmt: skip


class OnlineCasesConfig(StageConfig):
    """Which cases to train, and how a process is to fail."""

    cases: list[str] = Field([], description="names of cases")
    processes: int = Field(1, description="how many processes train")
    url: str | None = Field(None, description="a server of vLLM, for the case that asks one")
    killed: list[int] = Field(
        [], description="a rank, and the step of the case `killed` at which it kills itself"
    )


def train_cases(config: OnlineCasesConfig, out: Workspace, report: Report) -> None:
    """Train each case in a folder of its own below the checkpoints, which all ranks share."""
    torch.set_num_threads(1)
    ranks.meet(60)
    for case in config.cases:
        folder = out.checkpoints / case
        with ranks.first_before_others():
            prepare = prepared_to_call if case in CALLING else prepared
            base, prompts = prepare(folder / "given")
        mine = workspace(folder / f"rank_{ranks.number()}")
        mine = Workspace(mine.data, workspace(folder / "shared").checkpoints, mine.logs)
        heard = Heard()
        told = Report(partial(tell, heard, config.killed if case == "killed" else []))
        train_case(case, base, prompts, mine, told, config.processes, config.url)
        report.table(case, ["step", "loss"], [[step, loss] for step, loss in heard.steps("loss").items()])
        report.summary(**{f"{case}_{name}": value for name, value in heard.summary.items()})
        report.log(f"{case}: {[event['message'] for event in heard.of('log')]}")


def prepared(folder: Path) -> tuple[Model, PromptData]:
    """A model and prompts for it, made once."""
    base = folder / "base"
    if not base.exists():
        make_model(base, initializer_range=0.2)
        rewards_file(folder)
        prompt_data(folder / "prompts", base, words_to_sort()[:12])
    return Model(base), PromptData(folder / "prompts")


def prepared_to_call(folder: Path) -> tuple[Model, PromptData]:
    """A model that calls tools, which all cases share, and prompts for it, made once."""
    base = folder.parents[1] / "caller"
    if not base.exists():
        caller(base)
    if not folder.exists():
        prompts_of(folder / "prompts", base, [{"start": number % 5} for number in range(12)])
    return Model(base), PromptData(folder / "prompts")


def calling_settings(folder: Path, case: str, processes: int, url: str | None) -> GrpoConfig:
    """Rewards by environments and what they were told."""
    code = environment_file(folder)
    keys = {"max_completion_length": 48, "sequence_len": 64, "reward_funcs": ["counting.total"]}
    given = {"environment_factory": "counting.Counter", "environment_code": [code], "reward_code": [code]}
    tools = {"tools_code": [code]} if "tools" in CALLING[case] else {}
    there = {"vllm_server_base_url": url, "processes": processes}
    return GrpoConfig(**settings_for(folder, **{**EACH, **keys, **given, **tools, **CALLING[case], **there}))


def train_case(
    case: str,
    base: Model,
    prompts: PromptData,
    out: Workspace,
    report: Report,
    processes: int,
    url: str | None = None,
) -> None:
    """Train one case."""
    if case in CALLING:
        config = calling_settings(prompts.path.parent, case, processes, url)
        learn(config, base, prompts, out, report, prompts)
        return
    settings = settings_for(base.path.parent, **{**EACH, **CASES[case]}, processes=processes)
    if case == "played":
        settings["rollout_code"] = [playing_file(base.path.parent)]
    if case == "ebft":
        rewards = ("reward_funcs", "reward_code")
        kept = {name: value for name, value in settings.items() if name not in rewards}
        ebft(EbftConfig(**kept), base, prompts, out, report)
    else:
        # Scored, where a case asks for that, on what it learns from.
        learn(GrpoConfig(**settings), base, prompts, out, report, prompts)
