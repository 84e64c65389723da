"""One online training of the kill tests: `python killed_online.py CASE FOLDER AFTER`.

It is killed by SIGKILL just before the journal's event number AFTER (from 1) of this process: a file that takes its
name, or a line of steps. The test module imports `run` to run without a kill, and `Ended` to end it in this process.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from support.environments import caller, played, playing_file
from support.online import trained, trained_on_answers, words_to_sort
from support.tiny_model import Heard, make_model

from tunemill.stages.report import Report

# 2 rounds of 4 groups of 2, in two parts each; a step learns from half a round, and each is learned from twice: 4 steps
# a round. Checkpoints after 3 and 6 lie in the middle of a round.
CASES: dict[str, dict[str, Any]] = {
    "lora": {
        "num_generations": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4,
        "num_iterations": 2, "completions_at_once": 4, "max_steps": 8, "save_steps": 3, "beta": 0.1, "adapter": "lora",
        "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True, "gradient_checkpointing": True,
    },
    # A reference that follows, and is in the checkpoints.
    "full": {
        "num_generations": 2, "micro_batch_size": 4, "gradient_accumulation_steps": 1, "generation_batch_size": 8,
        "completions_at_once": 4, "max_steps": 6, "save_steps": 3, "beta": 0.1, "sync_ref_model": True,
        "ref_model_sync_steps": 2, "loss_type": "grpo", "top_k": 50,
    },
    # Two rounds ahead, groups that are learned from again, prompts that are asked again. Checkpoints after 3 and 9 lie
    # in the middle of a round, with rounds behind them that were sampled of weights before them.
    "ahead": {
        "num_generations": 2, "micro_batch_size": 8, "gradient_accumulation_steps": 1, "num_iterations": 2,
        "completions_at_once": 4, "max_steps": 10, "save_steps": 3, "beta": 0.1, "adapter": "lora", "lora_r": 4,
        "lora_alpha": 8, "lora_target_linear": True, "async_prefetch": True, "prefetch_depth": 2,
        "replay_buffer_size": 4, "reroll_start_fraction": 0.2, "reward_funcs": ["letters.half"],
    },
    "ebft": {
        "num_generations": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4,
        "num_iterations": 2, "completions_at_once": 4, "max_steps": 8, "save_steps": 3, "use_whitening": True,
        "embed_method": "concat", "ce_coef": 0.1, "adapter": "lora", "lora_r": 4, "lora_alpha": 8,
        "lora_target_linear": True,
    },
    # A round ahead, and rewards of two prompts at a time, beside what samples.
    "streamed": {
        "num_generations": 2, "micro_batch_size": 8, "gradient_accumulation_steps": 1, "completions_at_once": 4,
        "max_steps": 2, "save_steps": 1, "async_prefetch": True, "streaming_partial_batch": True,
        "streaming_min_groups": 2,
    },
    # Completions that a function draws by torch's own numbers.
    "rollout_func": {
        "num_generations": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4,
        "num_iterations": 2, "completions_at_once": 4, "max_steps": 8, "save_steps": 3, "rollout_func": "playing.drawn",
    },
    # Completions that call tools, in environments of their own.
    "environments": {
        "num_generations": 2, "micro_batch_size": 2, "gradient_accumulation_steps": 2, "steps_per_generation": 4,
        "num_iterations": 2, "completions_at_once": 4, "max_steps": 8, "save_steps": 3, "beta": 0.1, "adapter": "lora",
        "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True,
    },
    # Blocks inside of documents: two documents a step, each of which is a file of the journal.
    "strided": {
        "mode": "strided", "stride": 2, "context_length": 2, "generate_max_len": 2, "n_samples_per_prompt": 2,
        "micro_batch_size": 1, "gradient_accumulation_steps": 2, "max_steps": 5, "save_steps": 3, "ce_coef": 0.1,
        "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True,
    },
}  # fmt: skip


# Those that score held-out prompts beside their steps.
EVALUATED = ("lora", "ebft")


def run(case: str, folder: Path, report: Report) -> Path:
    """Train one case and return its data folder."""
    torch.set_num_threads(1)
    base = folder.parent / "base"
    if case == "environments":
        if not base.exists():
            caller(base)
        return played(folder, base, report, **CASES[case])
    if not base.exists():
        make_model(base)
    words, settings = words_to_sort(), CASES[case]
    held_out = words[12:16] if case in EVALUATED else []
    evaluations = {"eval_steps": 2} if held_out else {}
    if case in ("ebft", "strided"):
        return trained_on_answers(folder, base, words[:12], report, held_out, **settings, **evaluations)
    settings = {"reward_funcs": ["letters.varied"], **evaluations, **settings}
    if case == "rollout_func":
        settings["rollout_code"] = [playing_file(folder.parent)]
    return trained(folder, base, words[:12], report, held_out=held_out, **settings)


class Watch:
    """Hears of each event of journals, and calls `on_event` before it; only one is asked at a time."""

    def __init__(self) -> None:
        self.on_event: Callable[[str], None] | None = None
        sys.addaudithook(self._hear)

    def _hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.on_event is None:
            return
        if name == "os.rename" and "/journal/" in str(arguments[1]):
            self.on_event(Path(str(arguments[1])).name)
        elif name == "open" and str(arguments[0]).endswith("/journal/steps.jsonl") and arguments[1] == "a":
            self.on_event("step")


if __name__ == "__main__":
    case_name, folder_name, after = sys.argv[1:]
    left = [int(after)]

    def kill(_event: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Watch().on_event = kill
    run(case_name, Path(folder_name), Heard().report)
