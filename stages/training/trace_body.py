"""What is kept of a run beside its result: a trace of some of its steps, and every figure of every step."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from tunemill.stages.report import Report

TRACE = "profile.json.gz"
SNAPSHOT = "memory_snapshot.pickle"
METRICS = "metrics.jsonl"
# So many allocations of a GPU are remembered.
REMEMBERED = 100_000


class Profiler(TrainerCallback):  # type: ignore[misc]
    """A trace of `steps` steps after the first `start`, for chrome://tracing or Perfetto; on a GPU its memory too."""

    def __init__(self, steps: int, start: int, logs: Path, report: Report) -> None:
        self.steps = steps
        self.start = start
        self._logs = logs
        self._report = report
        self._running: Any = None
        self._until = 0

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """A resumed run traces what is left of these steps."""
        if self._running is not None or not self.start <= state.global_step < self.start + self.steps:
            return
        self._until = self.start + self.steps
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history(max_entries=REMEMBERED)
        self._running = profile(activities=activities, record_shapes=True, profile_memory=True)
        self._running.start()

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        """After the last of the steps."""
        if self._running is not None and state.global_step >= self._until:
            self._stop()

    def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
        """A training that was shorter."""
        if self._running is not None:
            self._stop()

    def _stop(self) -> None:
        self._running.stop()
        self._running.export_chrome_trace(str(self._logs / TRACE))
        if torch.cuda.is_available():
            torch.cuda.memory._dump_snapshot(str(self._logs / SNAPSHOT))
            torch.cuda.memory._record_memory_history(enabled=None)
        self._running = None
        self._report.log(f"the trace of {self.steps} steps is {TRACE} beside this log")


def write_metrics(history: list[dict[str, Any]], logs: Path) -> None:
    """Every figure of every step as a line of JSON beside the log: {"step": 3, "loss": 1.5, ...}."""
    # A log that was read from a checkpoint has its names in another order.
    lines = [
        json.dumps({"step": entry["step"], **dict(sorted(entry.items()))})
        for entry in history
        # The Trainer's own summary holds seconds.
        if "step" in entry and "train_runtime" not in entry
    ]
    (logs / METRICS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
