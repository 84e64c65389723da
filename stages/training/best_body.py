"""Held-out rows that decide: which step's weights are kept, when no better ones are waited for, learning rates."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.callbacks_body import Monitor
from tunemill.stages.training.checkpoints import is_complete, seal
from tunemill.stages.training.keys.training import TrainingKeys
from tunemill.stages.training.optimizers.averages_body import averages_used

WEIGHTS = "trained.safetensors"


class Best(TrainerCallback):  # type: ignore[misc]
    """Compares what the monitor found; stands behind it, and before the checkpoints.

    What was found and what was the best is in the Trainer's state, and so in every checkpoint: a resumed run decides
    as one that was never interrupted.
    """

    def __init__(self, config: TrainingKeys, monitor: Monitor, root: Path) -> None:
        self.metric = config.best_metric
        self.more_is_better = config.more_is_better
        self.patience = config.early_stopping_patience
        self.keeps = config.keeps_best
        self._monitor = monitor
        self._root = root

    def on_step_end(
        self, _args: Any, state: Any, control: Any, model: Any, optimizer: Any = None, **_kwargs: Any
    ) -> None:
        """Called when the monitor has scored the step, if it is due."""
        scores = self._monitor.scores.get(state.global_step)
        if scores is None:
            return
        found = figure_of(scores, self.metric)
        before = state.best_metric
        if before is None or (found > before if self.more_is_better else found < before):
            state.best_metric, state.best_global_step = found, state.global_step
            if self.keeps and ranks.is_first():
                with averages_used(optimizer):
                    self._keep(model, state.global_step)
        worse = [
            entry
            for entry in state.log_history
            if self.metric in entry and entry["step"] > state.best_global_step
        ]
        if self.patience is not None and len(worse) >= self.patience:
            control.should_training_stop = True

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Weights that no later start would ask for go, once there is a checkpoint that names the best."""
        for folder in self._root.glob("best-*") if ranks.is_first() else ():
            if folder.name != f"best-{state.best_global_step}":
                shutil.rmtree(folder)

    def _keep(self, model: Any, step: int) -> None:
        folder = self._root / f"best-{step}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        trained = {name: weight.detach().cpu().contiguous() for name, weight in _trained(model).items()}
        save_file(trained, folder / WEIGHTS)
        seal(folder)

    def settle(self, trainer: Any, report: Report) -> None:
        """Put the best weights back where they are asked for, and say which step's they are.

        They are those that were scored: with an optimizer that averages, the averages.

        Raises UserError where nothing was evaluated, or where the best weights are gone.
        """
        state = trainer.state
        if state.best_global_step is None or state.best_metric is None:
            raise UserError(
                f"no evaluation within {state.global_step} steps, and held-out rows decide. Evaluate earlier, by "
                f"eval_steps or evals_per_epoch."
            )
        stopped = state.global_step < state.max_steps
        report.summary(
            best_step=state.best_global_step,
            stopped_early=stopped,
            **{f"best_{self.metric}": state.best_metric},
        )
        if stopped:
            report.log(
                f"stopped after step {state.global_step} of {state.max_steps}: {self.patience} evaluations were no "
                f"better than that of step {state.best_global_step}"
            )
        if not self.keeps:
            return
        ranks.wait_for_all()
        folder = self._root / f"best-{state.best_global_step}"
        if not is_complete(folder):
            raise UserError(
                f"{folder}, the weights of the best step, is gone or torn. Begin the training anew."
            )
        kept = load_file(folder / WEIGHTS)
        with torch.no_grad():
            for name, weight in _trained(trainer.model).items():
                weight.copy_(kept[name])
        report.log(f"the result has the weights of step {state.best_global_step}, the best on held-out rows")


class HeldOutRates(TrainerCallback):  # type: ignore[misc]
    """Tells a scheduler that follows held-out rows what the monitor found; stands behind it, before the checkpoints.

    What the scheduler has counted is its state, and so in every checkpoint.
    """

    def __init__(self, config: TrainingKeys, monitor: Monitor, report: Report) -> None:
        self.metric = config.best_metric
        self._monitor = monitor
        self._report = report

    def on_step_end(
        self, _args: Any, state: Any, _control: Any, optimizer: Any, lr_scheduler: Any, **_kwargs: Any
    ) -> None:
        """Called when the monitor has scored the step, if it is due."""
        scores = self._monitor.scores.get(state.global_step)
        if scores is None:
            return
        found, before = figure_of(scores, self.metric), _rate(optimizer)
        lr_scheduler.step(found)
        if (now := _rate(optimizer)) != before:
            self._report.log(
                f"step {state.global_step}: {self.metric} is {found:.4g}, and the learning rate is {now:g} in place of "
                f"{before:g} from now on"
            )


def _rate(optimizer: Any) -> float:
    return float(optimizer.param_groups[0]["lr"])


def figure_of(scores: Mapping[str, float], metric: str) -> float:
    """The figure that is compared. Raises SettingError where there is none of this name."""
    if metric not in scores:
        raise SettingError(
            f"metric_for_best_model: {metric} is no figure of the held-out rows. There are: "
            f"{', '.join(sorted(scores))}."
        )
    return scores[metric]


def rates_of(config: TrainingKeys, monitor: Monitor | None, report: Report) -> HeldOutRates | None:
    """What changes learning rates by held-out rows; None where they follow the steps."""
    if not config.chosen_scheduler.follows_held_out:
        return None
    return HeldOutRates(config, _scoring(monitor), report)


def best_of(config: TrainingKeys, monitor: Monitor | None, out: Workspace) -> Best | None:
    """What compares evaluations; None where nothing does. Raises SettingError where nothing would be scored."""
    return Best(config, _scoring(monitor), out.checkpoints) if config.compares_evaluations else None


def _scoring(monitor: Monitor | None) -> Monitor:
    if monitor is None:
        raise SettingError(
            "held-out rows decide, and no evaluation lies within the steps of this training. Evaluate earlier, by "
            "eval_steps or evals_per_epoch."
        )
    return monitor


def _trained(model: Any) -> dict[str, Any]:
    """The parameters that steps may change, each once: without an adapter all, for which are trained may change."""
    whole = not hasattr(model, "peft_config")
    return {name: weight for name, weight in model.named_parameters() if whole or weight.requires_grad}
