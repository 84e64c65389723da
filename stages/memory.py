"""What a stage that trains says of the memory that it will need: plain data between its estimate and the plan."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

# In the workspace of an estimate: what it is told of the nodes above, and what it says.
ABOVE_FILE, ESTIMATE_FILE = "above.json", "estimate.json"


@dataclass(frozen=True)
class Above:
    """A node that the training is made from: its settings, and the folder of its artifact where there is one."""

    settings: Mapping[str, Any]
    folder: str | None = None


@dataclass(frozen=True)
class Saving:
    """A setting to turn, and how many bytes less the training then takes at its peak."""

    setting: str
    saved: int


@dataclass(frozen=True)
class Estimate:
    """Bytes on the device that trains. Each part is the most that it ever takes.

    `total` is the most that all take at one moment: less than the sum of the parts where gradients grow while
    activations go. `logits` are the scores over the vocabulary and what the loss makes of them. `generation` is what
    the model takes between steps, beside its weights, where it answers prompts; `server` what a server that answers
    takes of the same device all the while. `savings` begin with the largest.
    `device` names what was planned for, and `capacity` is what it has (None: not a GPU). `notes` say what was taken
    for what cannot be known yet.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    total: int
    device: str
    capacity: int | None = None
    savings: Sequence[Saving] = ()
    notes: Sequence[str] = ()
    generation: int = 0
    server: int = 0


def beside_server(estimate: Estimate, share: float) -> Estimate:
    """The estimate where a server has that share of the GPU all the while; of main memory nothing can be told."""
    taken = 0 if estimate.capacity is None else math.ceil(share * estimate.capacity)
    return replace(estimate, server=taken, total=estimate.total + taken)


def write_above(folder: Path, above: Mapping[str, Above]) -> None:
    """Leave for an estimate what is above it."""
    text = json.dumps({name: asdict(one) for name, one in above.items()})
    (folder / ABOVE_FILE).write_text(text, encoding="utf-8")


def read_above(folder: Path) -> dict[str, Above]:
    """What was left for an estimate, by the names of stages."""
    stored = json.loads((folder / ABOVE_FILE).read_text(encoding="utf-8"))
    return {name: Above(**one) for name, one in stored.items()}


def write_estimate(folder: Path, estimate: Estimate) -> None:
    """Leave an estimate for who asked."""
    (folder / ESTIMATE_FILE).write_text(json.dumps(asdict(estimate)), encoding="utf-8")


def read_estimate(folder: Path) -> Estimate:
    """The estimate that was left."""
    stored = json.loads((folder / ESTIMATE_FILE).read_text(encoding="utf-8"))
    return Estimate(**{**stored, "savings": [Saving(**one) for one in stored["savings"]]})
