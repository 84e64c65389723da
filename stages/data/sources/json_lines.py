"""JSON lines: a row is an object on a line of its own."""

from collections.abc import Iterator
from pathlib import Path

from tunemill.stages.data.sources.json_layout import BOM
from tunemill.stages.data.sources.json_values import decoded
from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import unpacked


def json_lines(path: Path, skip: int) -> Iterator[Row]:
    """The rows after the first `skip`. Blank lines are not rows, but count as lines."""
    with unpacked(path) as file:
        for number, line in enumerate(file, 1):
            text = plain(line)
            if not text:
                continue
            if skip:
                skip -= 1
                continue
            yield row_of_line(number, text)


def plain(line: bytes) -> bytes:
    """A line without white space around it, and the byte order mark that files put behind each other bring."""
    return line.removeprefix(BOM).strip()


def is_blank(line: bytes) -> bool:
    """Whether `plain` leaves nothing of a line."""
    return line.isspace() or (line.startswith(BOM) and not plain(line))


def row_of_line(number: int, text: bytes) -> Row:
    """The row on a line that is not blank."""
    try:
        return Row(number, decoded(text.decode("utf-8")))
    except UnicodeDecodeError as error:
        problem = f"not UTF-8: byte {error.start + 1} of the line"
    except ValueError as error:
        problem = str(error)
    return Row(number, problem=problem, text=text.decode("utf-8", errors="replace"))


def count_lines(path: Path) -> int:
    """How many lines are not blank."""
    with unpacked(path) as file:
        return sum(1 for line in file if not is_blank(line))
