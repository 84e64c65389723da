"""How rows stand in a JSON file: one a line, as elements of one array, or as objects of any number of lines."""

import codecs
import re
from pathlib import Path
from typing import IO, Literal

from tunemill.stages.data.sources.json_stream import has_long_object
from tunemill.stages.data.sources.unpacking import unpacked_text

Layout = Literal["lines", "array", "objects"]
BOM = codecs.BOM_UTF8
# The longest line that is looked at, in bytes.
LONGEST_LOOK = 1 << 24
# A quotation mark by itself begins a string that does not end.
MARKS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
# After these a value or the name of a field may begin.
OPEN_ENDS = (b"[", b"{", b",", b":")


def layout_of(path: Path) -> Layout:
    """How the rows of a file stand. Raises UnreadableError for text in UTF-16 or UTF-32.

    A first line that is a whole array with more lines after it is a line like others, which has no row in it.
    """
    with unpacked_text(path) as file:
        first, is_cut = _next_line(file)
        if first.startswith(b"["):
            return "array" if is_cut else _of_bracket(first, _next_line(file)[0])
        if not first.startswith(b"{"):
            return "lines"
        end, _ = _closing(first)
        if end is not None:
            # Objects behind each other; also lines that end in carriage returns alone.
            is_one_line = first[end:].lstrip().startswith(b"{") and (is_cut or not _next_line(file)[0])
            return "objects" if is_one_line else "lines"
        second = b"" if is_cut else _next_line(file)[0]
    if not second:
        return "lines"
    return "objects" if first == b"{" or has_long_object(path) else "lines"


def _of_bracket(first: bytes, second: bytes) -> Layout:
    """The layout of a file whose first line begins with a bracket."""
    if not second:
        return "array"
    end, in_string = _closing(first)
    if end is not None:
        return "lines"
    # A line that was cut off, and one that is whole.
    is_broken = in_string or not first.endswith(OPEN_ENDS)
    is_row = second.startswith((b"{", b"[")) and _closing(second)[0] == len(second)
    return "lines" if is_broken and is_row else "array"


def _next_line(file: IO[bytes]) -> tuple[bytes, bool]:
    """The next line that is not blank, without white space around it, and whether it is cut; b"" at the end."""
    while line := file.readline(LONGEST_LOOK):
        text = line.removeprefix(BOM).strip()
        if text:
            return text, len(line) == LONGEST_LOOK and not line.endswith(b"\n")
    return b"", False


def _closing(text: bytes) -> tuple[int | None, bool]:
    """Where the bracket that a text begins with is closed, and whether the text ends inside a string."""
    depth = 0
    for match in MARKS.finditer(text):
        mark = match[0]
        if mark == b'"':
            return None, True
        depth += (mark in b"[{") - (mark in b"]}")
        if depth == 0:
            return match.end(), False
    return None, False
