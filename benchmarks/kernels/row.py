"""One measured line, as it travels from the measuring process to the tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Begins the lines of a measuring process that `run.py` reads.
MARK = "@tunemill "
FAILED = "FAILED"
TRAINING_STEP = "training_step"
OUT_OF_TIME = "not run: out of time"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of computing one case. Numbers are None where they were not measured; `note` says why."""

    kernel: str
    shape: str
    dtype: str
    way: str
    forward_ms: float | None = None
    both_ms: float | None = None
    forward_bytes: int = 0
    both_bytes: int | None = None
    forward_flops: int = 0
    both_flops: int = 0
    peak_mib: float | None = None
    """Above the inputs; of a training step, everything."""
    difference: float | None = None
    """Largest norm of (result - reference) over the norm of the reference, results and gradients."""
    tokens_per_second: float | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    note: str = ""

    @property
    def case(self) -> tuple[str, str, str]:
        """What the ways have in common."""
        return self.kernel, self.shape, self.dtype

    @property
    def has_failed(self) -> bool:
        """Whether our own code failed."""
        return self.note.startswith(FAILED)

    @property
    def ms(self) -> float | None:
        """Forward and backward; forward where there is no backward."""
        return self.forward_ms if self.both_bytes is None and self.both_ms is None else self.both_ms

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
