"""What became of a node."""

from dataclasses import dataclass
from typing import Any, Literal

from tunemill.resources.pins import Pin
from tunemill.resources.store import Published

State = Literal["cached", "pinned", "computed", "failed", "skipped", "left alone"]


@dataclass(frozen=True)
class Finished:
    """What became of a node: `reasons` say why it ran, `message` why it failed.

    `note` says what is not as asked although the artifact is. `pin` has kept it. What is left
    alone was not asked for, and not looked at.
    """

    node: str
    stage: str
    state: State
    reasons: tuple[str, ...]
    seconds: float
    published: Published | None
    key: str | None
    message: str | None = None
    note: str | None = None
    pin: Pin | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "stage": self.stage,
            "state": self.state,
            "reasons": list(self.reasons),
            "seconds": round(self.seconds, 3),
            "key": self.key,
            "digest": self.published.digest if self.published else None,
            "path": str(self.published.data) if self.published else None,
            "metrics": dict(self.published.manifest["metrics"]) if self.published else {},
            "message": self.message,
            "note": self.note,
            "pin": None if self.pin is None else self.pin.as_json(),
        }
