"""The folder of an evaluation, read: its metrics, and its rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.errors import UserError

Row = Mapping[str, Any]


def unit_of(row: Row) -> str | None:
    """What a row stands for together with others: its group, or else its question; None where neither is known."""
    return str(row["group"]) if row.get("group") is not None else row.get("id")


@dataclass(frozen=True)
class Scored:
    """What an evaluation wrote; `intervals` are empty in an artifact of old."""

    metrics: Mapping[str, Any]
    intervals: Mapping[str, Mapping[str, Any]]
    rows: Sequence[Row]

    @property
    def has_ids(self) -> bool:
        """Whether every row has a name that another evaluation of the same question gives it too."""
        return bool(self.rows) and all(isinstance(row.get("id"), str) and row["id"] for row in self.rows)


def is_scored(folder: Path) -> bool:
    """Whether the folder is that of an evaluation."""
    report = EvaluationReport(folder)
    return report.metrics.is_file() and report.predictions.is_file()


def read_scored(folder: Path) -> Scored:
    """Read it. Raises UserError where a file is damaged."""
    return Scored(read_metrics(folder), read_intervals(folder), list(read_rows(folder)))


def read_metrics(folder: Path) -> dict[str, Any]:
    """Its figures. Raises UserError where the file is damaged."""
    return _object(EvaluationReport(folder).metrics)


def read_intervals(folder: Path) -> dict[str, Any]:
    """How sure they are; nothing in an artifact of old. Raises UserError where the file is damaged."""
    file = EvaluationReport(folder).intervals
    return _object(file) if file.is_file() else {}


def read_rows(folder: Path) -> Iterator[Row]:
    """Its rows. Raises UserError where the file is damaged."""
    yield from rows_in(EvaluationReport(folder).predictions)


def rows_in(path: Path) -> Iterator[Row]:
    """The objects of a file of JSON lines that a stage has written. Raises UserError where it is damaged."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield _parsed(line, f"{path}:{number}")


def _object(file: Path) -> dict[str, Any]:
    return _parsed(file.read_bytes(), str(file))


def _parsed(text: bytes, place: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: is no JSON ({error}); `tunemill cache verify` finds damage") from None
    if not isinstance(found, dict):
        raise UserError(f"{place}: is no JSON object; `tunemill cache verify` finds damage")
    return found
