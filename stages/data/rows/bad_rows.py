"""Rows that cannot be used: all of them are looked at, then they stop the stage or are set aside."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from tunemill.stages.errors import BadReason, RowError, RowPlace, row_error
from tunemill.stages.report import Report

LISTED_REASONS = 10
LISTED_PLACES = 3
# Characters of a reason: it may quote the names of a row's fields, and a row may have thousands.
LONGEST_REASON = 400
KEPT_ROWS = 5
REJECTED = "rejected.jsonl"
SKIP_HINT = "`pipeline: {bad_rows: skip}` in the YAML sets such rows aside and goes on with the others"
Policy = Literal["stop", "skip"]
# What rows look like, as a sentence, if that can be told; the second argument is whether all rows are bad.
Likeness = Callable[[Sequence[dict[str, Any]], bool], str | None]


@dataclass
class BadRows:
    """The bad rows of one dataset. With `policy` skip each is written to `folder`/rejected.jsonl.

    `count` are the bad rows, `good` the others. Of the bad ones only as much is kept as is said of them in the end:
    the first reasons, the first places for each, and the first rows. `usual` are the fields of the first good row.
    """

    name: str
    policy: Policy
    folder: Path
    count: int = 0
    good: int = 0
    reasons: dict[str, BadReason] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    usual: frozenset[str] | None = None
    _file: IO[str] | None = None

    @property
    def stops(self) -> bool:
        """Whether nothing more needs to be written: a bad row will be an error in the end."""
        return self.count > 0 and self.policy == "stop"

    def add(self, place: RowPlace, reason: str, text: str = "", row: Any = None) -> None:
        """A bad row and why it is one; `text` is the row as it was read, `row` its value, as far as it could be."""
        self.count += 1
        self._note(place, reason)
        if isinstance(row, dict) and len(self.rows) < KEPT_ROWS:
            self.rows.append(row)
        if self.policy == "skip":
            if self._file is None:
                self._file = (self.folder / REJECTED).open("w", encoding="utf-8")
            # A dataset that is one file is the same dataset under another name.
            named = {} if place.file == self.name else {"file": place.file}
            # The row's own text is `row`.
            counted = "number" if place.unit == "row" else place.unit
            entry = {**named, counted: place.number, "reason": reason, "row": text}
            self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def add_good(self, count: int, first: Any = None) -> None:
        """So many rows can be used, of which `first` is the first."""
        self.good += count
        if self.usual is None and isinstance(first, dict):
            self.usual = frozenset(first)

    def _note(self, place: RowPlace, reason: str) -> None:
        said = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
        if said not in self.reasons:
            if len(self.reasons) == LISTED_REASONS:
                return
            self.reasons[said] = BadReason(said, [], 0)
        known = self.reasons[said]
        known.count += 1
        if len(known.places) < LISTED_PLACES:
            known.places.append(place)

    def finish(self, report: Report, likeness: Likeness | None = None) -> None:
        """Closes the file and says how many were set aside.

        Raises RowError with the first ten reasons if the rows stop the stage. `likeness` says what such rows are.
        """
        if self._file is not None:
            self._file.close()
        if self.stops:
            raise self.error(likeness)
        if self.policy == "skip":
            report.summary(rejected=self.count)
        if self.count:
            report.table(
                f"Rejected rows ({self.count}, all in {REJECTED})",
                ["file", "first row", "rows", "reason"],
                [
                    [known.places[0].file, known.places[0].number, known.count, known.reason]
                    for known in self.reasons.values()
                ],
            )

    def error(self, likeness: Likeness | None = None) -> RowError:
        """The error that lists why rows cannot be used, what they look like, and how to go on without them."""
        # With all the fields of a good row it is one that is damaged, and no other kind of row.
        others = [row for row in self.rows if self.usual is None or not self.usual <= row.keys()]
        alike = likeness(others, self.good == 0) if likeness is not None and others else None
        advice = [] if alike is None else [alike]
        if alike is not None and self.good:
            advice.append("rows of different kinds need files, and entries under `datasets:`, of their own")
        if self.policy == "stop" and self.good:
            advice.append(SKIP_HINT)
        return row_error(self.name, list(self.reasons.values()), self.count, advice)


def none_left(bad: BadRows, likeness: Likeness | None = None) -> RowError:
    """The error for a dataset of which every row was set aside."""
    return RowError(
        f"no row of {bad.name} is left: every one was set aside (bad_rows: skip). {bad.error(likeness)}"
    )
