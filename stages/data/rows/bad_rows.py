"""Rows that cannot be used: all of them are looked at, then they stop the stage or are set aside."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from tunemill.stages.errors import RowPlace, row_error
from tunemill.stages.report import Report

LISTED_PROBLEMS = 10
REJECTED = "rejected.jsonl"
Policy = Literal["stop", "skip"]


@dataclass
class BadRows:
    """The bad rows of one dataset. With `policy` skip each is written to `folder`/rejected.jsonl."""

    name: str
    policy: Policy
    folder: Path
    count: int = 0
    listed: list[tuple[RowPlace, str]] = field(default_factory=list)
    _file: IO[str] | None = None

    @property
    def stops(self) -> bool:
        """Whether nothing more needs to be written: a bad row will be an error in the end."""
        return self.count > 0 and self.policy == "stop"

    def add(self, place: RowPlace, reason: str, text: str = "") -> None:
        """A bad row and why it is one; `text` is the row as it was read, as far as it could be."""
        self.count += 1
        if len(self.listed) < LISTED_PROBLEMS:
            self.listed.append((place, reason))
        if self.policy == "skip":
            if self._file is None:
                self._file = (self.folder / REJECTED).open("w", encoding="utf-8")
            # A dataset that is one file is the same dataset under another name.
            named = {} if place.file == self.name else {"file": place.file}
            entry = {**named, place.unit: place.number, "reason": reason, "row": text}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def finish(self, report: Report) -> None:
        """Closes the file and says how many were set aside. Raises RowError listing the first ten if they stop."""
        if self._file is not None:
            self._file.close()
        if self.stops:
            raise row_error(self.name, self.listed, self.count)
        if self.policy == "skip":
            report.summary(rejected=self.count)
        if self.count:
            report.table(
                f"Rejected rows ({self.count}, all in {REJECTED})",
                ["file", "row", "reason"],
                [[place.file, place.number, reason] for place, reason in self.listed],
            )
