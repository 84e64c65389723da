"""What a judge has said of answers: the rows of a judgements artifact."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Judged:
    """The judge's answer on a row, the verdict that was read of it, and its value; None where none could be read."""

    row: int
    id: str
    answer: str
    verdict: str | None
    value: bool | float | None


def write_judged(rows: Iterable[Judged], file: Path) -> None:
    """One JSON object a line, in the order of the rows."""
    with file.open("w", encoding="utf-8") as lines:
        for row in rows:
            lines.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read_judged(file: Path) -> Iterator[Judged]:
    """The rows of such a file."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Judged(**json.loads(line))
