"""Figures and curves of a whole training, for its report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tunemill.resources.protocols import HELD_OUT_PLOT, LOSS_PLOT
from tunemill.stages.models.wrapped_body import uncompiled
from tunemill.stages.report import Report
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.callbacks_body import Monitor, Reporter
from tunemill.stages.training.gathered_body import parts_of
from tunemill.stages.training.learnt_body import change_since
from tunemill.stages.training.schedule import Schedule


def summarize(
    trainer: Any,
    schedule: Schedule,
    reporter: Reporter,
    monitor: Monitor | None,
    before: Mapping[str, Tensor],
    report: Report,
) -> None:
    """Figures and curves of the whole training. `before`: some weights as they were when it began."""
    # The Trainer keeps its log in the checkpoints, so the curve of a resumed run starts at step 1.
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    numbers = [entry["step"] for entry in steps]
    losses = [entry["loss"] for entry in steps]
    report.summary(
        train_loss=sum(losses) / len(losses),
        last_loss=losses[-1],
        steps=trainer.state.global_step,
        epochs=trainer.state.global_step / schedule.steps_per_epoch,
        tokens_per_second=reporter.tokens / max(reporter.seconds, 1e-9),
        # ZeRO-3 leaves none of a parameter here, and says how large it is.
        trainable_parameters=sum(
            getattr(p, "ds_numel", p.numel()) for p in trainer.model.parameters() if p.requires_grad
        ),
    )
    if ranks.count() > 1:
        # Some settings would train one process alone, and say nothing.
        report.summary(processes=ranks.count(), exchanged_by=type(uncompiled(trainer.model_wrapped)).__name__)
        report.summary(**parts_of(trainer.model))
    report.summary(**_change(losses), **_gradients(steps), **change_since(before, trainer.model))
    report.plot(LOSS_PLOT, numbers, losses, x_label="step", y_label="loss (nats per token)")
    rates = [entry["learning_rate"] for entry in steps]
    report.plot("Learning rate", numbers, rates, x_label="step", y_label="learning rate")
    for name in sorted(reporter.own_metrics):
        # Not every step has it: a mean over rows of which it has none.
        having = [entry for entry in steps if name in entry]
        report.summary(**{f"last_{name}": having[-1][name]})
        report.plot(
            name, [e["step"] for e in having], [e[name] for e in having], x_label="step", y_label=name
        )
    if monitor is not None:
        tell_held_out(trainer.state.log_history, report)


def tell_held_out(log: Sequence[Mapping[str, Any]], report: Report) -> None:
    """Figures and curves of the evaluations: of the loss, or of rewards where there is none."""
    scores = [entry for entry in log if any(name.startswith("eval_") for name in entry)]
    if not scores:
        return
    report.summary(**{f"last_{name}": value for name, value in scores[-1].items() if name != "step"})
    numbers = [entry["step"] for entry in scores]
    if "eval_loss" in scores[-1]:
        losses = [entry["eval_loss"] for entry in scores]
        report.summary(first_eval_loss=losses[0], lowest_eval_loss=min(losses))
        report.plot(HELD_OUT_PLOT, numbers, losses, x_label="step", y_label="loss (nats per token)")
        return
    rewards = [entry["eval_reward"] for entry in scores if "eval_reward" in entry]
    if rewards:
        report.summary(first_eval_reward=rewards[0], highest_eval_reward=max(rewards))
    for name in (one for one in scores[-1] if one != "step"):
        having = [entry for entry in scores if name in entry]
        report.plot(
            name, [e["step"] for e in having], [e[name] for e in having], x_label="step", y_label=name
        )


def _change(losses: Sequence[float]) -> dict[str, float]:
    """The mean loss of the first and of the last quarter of the steps, and the standard error of their difference."""
    quarter = len(losses) // 4
    if quarter < 2:
        return {}
    first, last = np.array(losses[:quarter]), np.array(losses[-quarter:])
    error = math.sqrt((first.var(ddof=1) + last.var(ddof=1)) / quarter)
    return {
        "loss_at_start": float(first.mean()),
        "loss_at_end": float(last.mean()),
        "loss_change_error": error,
    }


def _gradients(steps: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    """Of the steps whose gradient norm is known: in how many it was no use, and how large it was in the others."""
    norms = np.array(
        [entry["grad_norm"] for entry in steps if entry.get("grad_norm") is not None], np.float64
    )
    if not len(norms):
        return {}
    finite, late = norms[np.isfinite(norms)], norms[len(norms) // 2 :]
    figures: dict[str, float | int] = {
        "steps_without_gradient": int((norms == 0).sum()),
        "steps_with_infinite_gradient": len(norms) - len(finite),
    }
    if len(finite):
        figures["median_gradient_norm"] = float(np.median(finite))
        figures["largest_late_gradient_norm"] = float(late[np.isfinite(late)].max(initial=0.0))
    return figures
