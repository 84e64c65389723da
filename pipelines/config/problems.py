"""What is wrong with a config, or worth a note, in words for a person and as data for a machine."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tunemill.resources.redaction import redacted

Kind = Literal[
    "unknown", "unsupported", "removed", "unread", "conflict", "value", "idle", "renamed", "ambiguous"
]
# These stop nobody: a setting that asks for nothing here, a key that was read under another name, and a value that
# other readers of YAML take for something else.
NOTES: frozenset[Kind] = frozenset({"idle", "renamed", "ambiguous"})


LONGEST_GIVEN = 200


def given(value: Any) -> str:
    """What was given, as a message shows it: cut where it is long."""
    text = redacted(repr(value))
    return text if len(text) <= LONGEST_GIVEN else f"{text[: LONGEST_GIVEN - 3]}..."


@dataclass(frozen=True)
class Problem:
    """`path` is the key, spelled `datasets[0].type`; line and column count from 1."""

    path: str
    line: int
    column: int
    kind: Kind
    message: str
    suggestion: str | None = None

    @property
    def is_note(self) -> bool:
        return self.kind in NOTES

    def line_in(self, file: Path) -> str:
        """`file:line:column: key: message`; a message that begins with its key says it once."""
        key = re.split(r"[.\]]", self.path)[-1] or self.path
        begins = key and re.match(rf"{re.escape(key)}\b", self.message)
        message = redacted(self.message)
        text = message if begins or not self.path else f"{self.path}: {message}"
        note = "note: " if self.is_note else ""
        meant = f"; did you mean `{self.suggestion}`?" if self.suggestion else ""
        return f"{file}:{self.line}:{self.column}: {note}{text}{meant}"

    def as_json(self) -> dict[str, Any]:
        return asdict(replace(self, message=redacted(self.message)))


class ConfigError(ValueError):
    """One or more problems of a config file."""

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each problem, in the order of the file."""
        ordered = sorted(self.problems, key=lambda problem: (problem.line, problem.column))
        return [problem.line_in(self.file) for problem in ordered]
