"""What happens beside the steps: reports, checkpoints and monitoring. None of it touches a weight."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from tunemill.stages.errors import UserError
from tunemill.stages.report import Report
from tunemill.stages.training import ranks_body as ranks
from tunemill.stages.training.background_body import Background
from tunemill.stages.training.checkpoints import keep_last, seal
from tunemill.stages.training.optimizers.averages_body import averages_used
from tunemill.stages.training.order_body import Examples
from tunemill.stages.training.schedule import Schedule

# What the Trainer logs of a step; everything else is the method's.
TRAINERS_OWN = frozenset({"loss", "grad_norm", "learning_rate", "epoch", "step"})
# Fast steps do not flood the pipe, and a bar still moves with every slow one.
PROGRESS_SECONDS = 0.25


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Hears of every step, tells the report of every `interval`-th, and stops a run whose loss broke down."""

    def __init__(self, report: Report, schedule: Schedule, examples: Examples, interval: int) -> None:
        self._report = report
        self._schedule = schedule
        self._examples = examples
        self._interval = interval
        self._order: tuple[int, list[int]] = (0, examples.order(0))
        self._losses: list[float] = []
        self._own: dict[str, list[float]] = {}
        self._tokens = 0
        self._since = time.monotonic()
        self._progress_at = -math.inf
        self.tokens = 0
        """Tokens without padding, trained by this process."""
        self.own_metrics: set[str] = set()
        """Names of the figures that the method adds to the loss."""
        self.seconds = 0.0
        """Time of this process in steps, without evaluations and checkpoints."""

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Start the clock; a resumed run begins at its checkpoint's step."""
        self._since = time.monotonic()
        self._report.progress(state.global_step, self._schedule.total, "steps")

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any], **_kwargs: Any) -> None:
        """Called after every step with its loss, before a checkpoint can be written."""
        if "loss" not in logs:
            return
        loss, step = logs["loss"], state.global_step
        if not math.isfinite(loss):
            numbers = self._numbers_of(step)
            self._report.suspects("training_data", self._examples.rows_of(numbers))
            raise UserError(
                f"step {step} of {self._schedule.total}: the loss is {loss}. Lower learning_rate (here "
                f"{logs['learning_rate']:g}), lower max_grad_norm, warm up longer, or use bf16 in place of fp16. The "
                f"step trained on {self._examples.named(numbers)}."
            )
        self._losses.append(loss)
        for name in logs.keys() - TRAINERS_OWN:
            self._own.setdefault(name, []).append(logs[name])
            self.own_metrics.add(name)
        self._tokens += self._tokens_of(step)
        if step % self._interval == 0 or step == self._schedule.total:
            self._tell(step, logs)
        if time.monotonic() - self._progress_at >= PROGRESS_SECONDS or step == self._schedule.total:
            self._report.progress(step, self._schedule.total, "steps")
            self._progress_at = time.monotonic()

    def _tell(self, step: int, logs: dict[str, Any]) -> None:
        seconds = time.monotonic() - self._since
        grad_norm = {"grad_norm": float(logs["grad_norm"])} if logs.get("grad_norm") is not None else {}
        self._report.step(
            step,
            loss=sum(self._losses) / len(self._losses),
            learning_rate=float(logs["learning_rate"]),
            tokens_per_second=self._tokens / max(seconds, 1e-9),
            **grad_norm,
            **{name: sum(values) / len(values) for name, values in sorted(self._own.items())},
        )
        self.tokens += self._tokens
        self.seconds += seconds
        self._losses, self._own, self._tokens, self._since = [], {}, 0, time.monotonic()

    def _tokens_of(self, step: int) -> int:
        return int(self._examples.lengths[self._numbers_of(step)].sum())

    def _numbers_of(self, step: int) -> list[int]:
        """The examples of a step, by stored number."""
        epoch, first, end = self._schedule.place(step)
        if self._order[0] != epoch:
            self._order = (epoch, self._examples.order(epoch))
        return self._order[1][first:end]

    def skip(self, seconds: float) -> None:
        """Leave time spent beside the steps out of the tokens per second."""
        self._since += seconds


class Checkpoints(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint at the due steps, seals it, and removes older ones only then.

    With a `background` the training goes on while one is written, which is told of when it is sealed. `limit`: how many
    are kept; None where another process removes the older ones.
    """

    def __init__(
        self,
        report: Report,
        root: Path,
        due: frozenset[int],
        limit: int | None,
        background: Background | None = None,
    ) -> None:
        self._report = report
        self._root = root
        self._due = due
        self._limit = limit
        self._background = background

    def on_step_end(self, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        """No checkpoint after the last step: the artifact itself follows."""
        control.should_save = state.global_step in self._due and state.global_step < state.max_steps
        if self._background is not None:
            self._background.look(waits=control.should_save)

    def on_save(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """Called when the Trainer has written its files: among several processes each its own."""
        ranks.wait_for_all()
        folder = self._root / f"checkpoint-{state.global_step}"
        told = partial(self._report.checkpoint, f"step {state.global_step} of {state.max_steps}")
        if self._background is not None:
            self._background.seal(folder, partial(self._seal, folder), told if ranks.is_first() else nothing)
            return
        self._seal(folder)
        if ranks.is_first():
            told()

    def _seal(self, folder: Path) -> None:
        if ranks.is_first():
            seal(folder)
        if self._limit is not None:
            keep_last(self._root, self._limit)

    def on_train_end(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
        """Nothing is left to be written beside the training when it is over."""
        if self._background is not None:
            self._background.look(waits=True)


def nothing() -> None:
    """Only the first process tells."""


class Monitor(TrainerCallback):  # type: ignore[misc]
    """Held-out loss at the due steps, computed with a random state of its own."""

    def __init__(
        self,
        report: Report,
        due: frozenset[int],
        score: Callable[[Any], dict[str, float]],
        skip: Callable[[float], None],
    ) -> None:
        self._report = report
        self._due = due
        self._score = score
        self._skip = skip
        self.scores: dict[int, dict[str, float]] = {}
        """Step -> figures of the held-out rows, of this process."""

    def on_step_end(
        self, _args: Any, state: Any, _control: Any, model: Any, optimizer: Any = None, **_kwargs: Any
    ) -> None:
        """Evaluate and tell; the model's mode and every random state are as before."""
        if state.global_step not in self._due:
            return
        started = time.monotonic()
        with random_state_kept(), averages_used(optimizer):
            # All look at the same rows, and none may decide otherwise by a last bit.
            self.scores[state.global_step] = ranks.agreed(self._score(model))
        # The Trainer keeps its log in the checkpoints, so a resumed run has all figures.
        state.log_history.append({"step": state.global_step, **self.scores[state.global_step]})
        self._report.step(state.global_step, **self.scores[state.global_step])
        self._skip(time.monotonic() - started)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Python's, numpy's and torch's random states are afterwards what they were before."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
