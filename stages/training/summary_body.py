"""Figures and curves of a whole training, for its report."""

from typing import Any

from tunemill.resources.protocols import HELD_OUT_PLOT, LOSS_PLOT
from tunemill.stages.report import Report
from tunemill.stages.training.callbacks_body import Monitor, Reporter
from tunemill.stages.training.schedule import Schedule


def summarize(
    trainer: Any, schedule: Schedule, reporter: Reporter, monitor: Monitor | None, report: Report
) -> None:
    """Figures and curves of the whole training."""
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
        trainable_parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
    )
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
    scores = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if monitor is not None and scores:
        report.summary(**{f"last_{name}": value for name, value in scores[-1].items() if name != "step"})
        held_out = [entry["eval_loss"] for entry in scores]
        report.plot(HELD_OUT_PLOT, [entry["step"] for entry in scores], held_out, x_label="step",
                    y_label="loss (nats per token)")  # fmt: skip
