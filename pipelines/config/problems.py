"""What is wrong with a config, or worth a note, in words for a person and as data for a machine."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunemill.pipelines.config.spans import Span, escaped, pointer
from tunemill.resources.redaction import redacted, redacted_document

Kind = Literal[
    "unknown",
    "unsupported",
    "removed",
    "unread",
    "conflict",
    "value",
    "idle",
    "renamed",
    "ambiguous",
    "elsewhere",
    "code",
    "files",
]
# These stop nobody: a setting that asks for nothing here, a key that was read under another name, a value that other
# readers of YAML take for something else, what this machine lacks or does otherwise than another, code that will run,
# and files that are left out.
NOTES: frozenset[Kind] = frozenset({"idle", "renamed", "ambiguous", "elsewhere", "code", "files"})


LONGEST_GIVEN = 200


def given(value: Any) -> str:
    """What was given, as a message shows it: as in a YAML, escaped, redacted, and cut where it is long."""
    if isinstance(value, str):
        text = repr(value)
    else:
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = repr(value)
    text = redacted(text)
    return text if len(text) <= LONGEST_GIVEN else f"{text[: LONGEST_GIVEN - 3]}..."


@dataclass(frozen=True)
class Problem:
    """`path` is the key, spelled `datasets[0].type`; line, column and `end`, the column behind, count from 1.

    `source` is the line at fault. Where an override is at fault it is that, as it was typed, and `override` too.
    """

    path: str
    line: int
    column: int
    kind: Kind
    message: str
    suggestion: str | None = None
    end: int | None = None
    source: str = ""
    override: str | None = None

    @property
    def is_note(self) -> bool:
        return self.kind in NOTES

    @property
    def order(self) -> tuple[bool, int, int]:
        """Sorts problems as the file has them; those of overrides come last."""
        return self.override is not None, self.line, self.column

    def line_in(self, file: Path) -> str:
        """`file:line:column: key: message`, or `file: in the override ...`; the key is said once."""
        key = re.split(r"[.\]]", self.path)[-1] or self.path
        begins = key and re.match(rf"{re.escape(key)}\b", self.message)
        text = self.message if begins or not self.path else f"{self.path}: {self.message}"
        note = "note: " if self.is_note else ""
        meant = f"; did you mean `{self.suggestion}`?" if self.suggestion else ""
        place = f"{file}:{self.line}:{self.column}"
        if self.override is not None:
            place = f"{file}: in the override `{self.override}`"
        return escaped(redacted(f"{place}: {note}{text}{meant}"))

    def shown_in(self, file: Path, width: int) -> list[str]:
        """`line_in`, then the line at fault with marks under the fault, as far as `width` goes.

        A line that holds a secret is not shown.
        """
        if redacted(self.source) != self.source:
            return [self.line_in(file)]
        span = Span(self.line, self.column, self.end or self.column + 1, self.source)
        return [self.line_in(file), *pointer(span, width)]

    def as_json(self) -> dict[str, Any]:
        """Without the line, which may be long, and which the file has."""
        document: dict[str, Any] = redacted_document(asdict(self))
        del document["source"]
        return document


def problem_of_span(
    path: str, span: Span, kind: Kind, message: str, suggestion: str | None = None
) -> Problem:
    """A problem with what stands at a span."""
    override = span.source if span.override else None
    return Problem(path, span.line, span.column, kind, message, suggestion, span.end, span.source, override)


class ConfigError(ValueError):
    """One or more problems of a config file."""

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """One line for each problem, in the order of the file."""
        return [problem.line_in(self.file) for problem in self.ordered()]

    def shown(self, width: int) -> list[str]:
        """The same with the lines at fault, no wider than `width`."""
        return [line for problem in self.ordered() for line in problem.shown_in(self.file, width)]

    def ordered(self) -> list[Problem]:
        """The problems in the order of the file."""
        return sorted(self.problems, key=lambda problem: problem.order)
