"""What is kept of trainings of a sweep: their losses by step, also of those that were stopped.

One small file for each key, below `sweeps/` of the state folder. It is a note for people and for the next rung; no
result is made from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemill.resources.folders import read_json, write_json
from tunemill.resources.protocols import HELD_OUT_LOSS, HELD_OUT_PLOT, LOSS, LOSS_PLOT

KINDS = {LOSS: LOSS_PLOT, HELD_OUT_LOSS: HELD_OUT_PLOT}


@dataclass
class Curve:
    """Step -> loss of a training, over its own rows and over held-out ones (nats per token)."""

    loss: dict[int, float] = field(default_factory=dict)
    held_out: dict[int, float] = field(default_factory=dict)

    def hear(self, event: Mapping[str, Any]) -> int | None:
        """Take in an event of the training; the step, if it told the held-out loss of one."""
        if event["type"] != "step":
            return None
        step, metrics = int(event["step"]), event["metrics"]
        if LOSS in metrics:
            self.loss[step] = float(metrics[LOSS])
        if HELD_OUT_LOSS not in metrics:
            return None
        self.held_out[step] = float(metrics[HELD_OUT_LOSS])
        return step


def read_curve(root: Path, key: str) -> Curve:
    """What is known of the training with this key; empty where nothing is, or the file is damaged."""
    found = read_json(_path(root, key))
    if not isinstance(found, dict):
        return Curve()
    return Curve(*(_by_step(found.get(kind)) for kind in KINDS))


def write_curve(root: Path, key: str, curve: Curve) -> None:
    """Keep it."""
    known = read_curve(root, key)
    write_json(
        _path(root, key),
        {LOSS: {**known.loss, **curve.loss}, HELD_OUT_LOSS: {**known.held_out, **curve.held_out}},
    )


def curve_of(manifest: Mapping[str, Any]) -> Curve:
    """That of a finished training, as its own plots have it."""
    plots = {plot["title"]: plot for plot in manifest["plots"]}
    return Curve(
        *(
            {int(x): float(y) for x, y in zip(plots[title]["x"], plots[title]["y"], strict=False)}
            if title in plots
            else {}
            for title in KINDS.values()
        )
    )


def _by_step(found: Any) -> dict[int, float]:
    if not isinstance(found, dict):
        return {}
    return {
        int(step): float(value)
        for step, value in found.items()
        if step.isdecimal() and isinstance(value, int | float)
    }


def _path(root: Path, key: str) -> Path:
    return root / "sweeps" / f"{key}.json"
