"""`split: train[10%:200]`: which rows of a file are taken, in the notation of the `datasets` library."""

import re
from dataclasses import dataclass

from tunemill.stages.errors import SettingError

PATTERN = re.compile(r"train(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Split:
    """A slice of the rows; a bound is a row number, or a percentage when it ends with `%`; `None` is open."""

    text: str
    start: str | None
    stop: str | None

    @property
    def takes_all(self) -> bool:
        return self.start is None and self.stop is None

    def bounds(self, rows: int) -> tuple[int, int]:
        """First row and the row after the last, of `rows` rows.

        Raises SettingError where a bound lies outside of the rows.
        """
        start = 0 if self.start is None else self._absolute(self.start, rows)
        stop = rows if self.stop is None else self._absolute(self.stop, rows)
        return start, max(start, stop)

    def _absolute(self, bound: str, rows: int) -> int:
        percent = bound.endswith("%")
        number = int(bound.rstrip("%"))
        limit = 100 if percent else rows
        if abs(number) > limit:
            raise SettingError(f"split: {self.text} asks for row {bound}, but the file has {rows} rows")
        if percent:
            number = round(number * rows / 100)
        return number + rows if number < 0 or bound.startswith("-") else number


def parse_split(text: str) -> Split:
    """Raises ValueError for a split that a local file does not have."""
    match = PATTERN.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ValueError(
            f"split: {text!r} is not a split of a local file, which has one split, `train`; "
            'write "train", or a slice of it such as "train[:100]" or "train[10%:]"'
        )
    return Split(text, match["start"], match["stop"])
