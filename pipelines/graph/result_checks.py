"""What the checks of a stage say of a node's artifact, by the figures of its manifest."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tunemill.stages.checks import Check
from tunemill.stages.declaration import Stage

State = Literal["passed", "failed", "not known"]
Severity = Literal["warning", "error"]


@dataclass(frozen=True)
class Checked:
    """What became of one check of a node: what it saw, and what to do where it failed.

    An error proves that the result is wrong; a warning is for a person to look at, and stops nothing.
    """

    node: str
    check: str
    state: State
    severity: Severity
    text: str
    advice: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "node": self.node,
            "check": self.check,
            "state": self.state,
            "severity": self.severity,
            "text": self.text,
            "advice": self.advice,
        }


def checks_of(node: str, stage: Stage, metrics: Mapping[str, Any]) -> list[Checked]:
    """Every check of the stage, over the metrics of the node's artifact."""
    return [_checked(node, check, metrics) for check in stage.checks]


def failed(checks: Iterable[Checked]) -> list[Checked]:
    """Those that a person has to look at, errors first."""
    found = [one for one in checks if one.state == "failed"]
    return sorted(found, key=lambda one: one.severity != "error")


def _checked(node: str, check: Check, metrics: Mapping[str, Any]) -> Checked:
    seen = check.look(metrics)
    if seen is None:
        return Checked(node, check.name, "not known", "warning", "its figures say nothing of this")
    state: State = "passed" if seen.passed else "failed"
    severity: Severity = "error" if seen.is_wrong and not seen.passed else "warning"
    return Checked(node, check.name, state, severity, seen.text, seen.advice)
