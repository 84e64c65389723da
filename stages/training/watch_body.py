"""What watches a run beside its steps: a loss that stays too high, and Python's garbage."""

import gc
from typing import Any

from transformers import TrainerCallback

from tunemill.stages.errors import UserError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.schedule import Schedule
from tunemill.stages.training.trace_body import Profiler


class LossWatchdog(TrainerCallback):  # type: ignore[misc]
    """Stops a run whose loss was above `threshold` in each of the last `patience` steps."""

    def __init__(self, threshold: float, patience: int, total: int) -> None:
        self.threshold = threshold
        self.patience = patience
        self._total = total

    def on_log(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Called after every step. The Trainer's log is in the checkpoints, so a resumed run counts on."""
        last = [entry for entry in state.log_history if "loss" in entry][-self.patience :]
        if len(last) < self.patience or any(entry["loss"] <= self.threshold for entry in last):
            return
        steps = f"{last[0]['step']} to {last[-1]['step']}" if self.patience > 1 else str(last[-1]["step"])
        losses = ", ".join(f"{entry['loss']:.4g}" for entry in last[-5:])
        raise UserError(
            f"loss_watchdog_threshold: {self.threshold:g}: in steps {steps} of {self._total} the loss was above it "
            f"({losses}), and loss_watchdog_patience is {self.patience}. Lower learning_rate, warm up longer, look at "
            f"the data, or raise these two. Checkpoints are kept."
        )


class CollectGarbage(TrainerCallback):  # type: ignore[misc]
    """Runs Python's garbage collector every so many steps, and at each epoch's end; `steps` -1: only there."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.runs = 0

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """At the due steps."""
        if self.steps > 0 and state.global_step % self.steps == 0:
            self._collect()

    def on_epoch_end(self, *_args: Any, **_kwargs: Any) -> None:
        """Between two epochs."""
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        self.runs += 1


def watches_of(
    config: TrainingKeys, schedule: Schedule, out: Workspace, report: Report
) -> list[TrainerCallback]:
    """The callbacks that the settings ask for."""
    found: list[TrainerCallback] = []
    if config.loss_watchdog_threshold is not None:
        found.append(LossWatchdog(config.loss_watchdog_threshold, config.watchdog_patience, schedule.total))
    if config.collects_garbage is not None:
        found.append(CollectGarbage(config.collects_garbage))
    if config.profiler_steps is not None and ranks.is_first():
        found.append(Profiler(config.profiler_steps, config.profiler_steps_start, out.logs, report))
    if ranks.count() > 1:
        found.append(ranks.SameDraws(config.seed))
    return found
