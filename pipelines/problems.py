"""What is wrong with a config, in words for a person and as data for a machine."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Problem:
    """`path` is the key, spelled `datasets[0].type`; line and column count from 1."""

    path: str
    line: int
    column: int
    kind: Literal["unknown", "unsupported", "conflict", "value"]
    message: str
    suggestion: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


class ConfigError(ValueError):
    """One or more problems of a config file."""

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each problem: `file:line:column: key: message`."""
        return [
            f"{self.file}:{p.line}:{p.column}: {p.path + ': ' if p.path else ''}{p.message}"
            + (f"; did you mean `{p.suggestion}`?" if p.suggestion else "")
            for p in sorted(self.problems, key=lambda problem: (problem.line, problem.column))
        ]
