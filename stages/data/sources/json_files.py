"""JSON lines and JSON arrays, one row at a time."""

import io
import json
import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import Any, TextIO

from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import READ_SIZE, UnreadableError, unpacked

BOM = b"\xef\xbb\xbf"
# A JSON error this close to the end of what has been read may only mean that the value goes on.
UNFINISHED_MARGIN = 16
WHITE_SPACE = re.compile(r"[ \t\r\n]*")


def refuse_constant(name: str) -> Any:
    """Called by the JSON parser for NaN and Infinity. Raises ValueError."""
    raise ValueError(f"{name} is not a JSON value")


DECODER = json.JSONDecoder(parse_constant=refuse_constant)


def is_array(path: Path) -> bool:
    """Whether the first character that is not white space is `[`: a JSON array, not JSON lines."""
    with unpacked(path) as file:
        while block := file.read(READ_SIZE):
            text = block.removeprefix(BOM).lstrip()
            if text:
                return text.startswith(b"[")
    return False


def json_lines(path: Path, skip: int) -> Iterator[Row]:
    """The rows after the first `skip`. Blank lines are not rows, but count as lines."""
    decode = DECODER.decode
    with unpacked(path) as file:
        for line, block in enumerate(file, 1):
            text = (block.removeprefix(BOM) if line == 1 else block).strip()
            if not text:
                continue
            if skip:
                skip -= 1
                continue
            try:
                yield Row(line, decode(text.decode("utf-8")))
            except UnicodeDecodeError as error:
                problem = f"not UTF-8: byte {error.start + 1} of the line"
            except JSONDecodeError as error:
                problem = f"invalid JSON: {error.msg} (column {error.colno})"
            except (ValueError, RecursionError) as error:
                problem = f"invalid JSON: {error}"
            else:
                continue
            yield Row(line, problem=problem, text=text.decode("utf-8", errors="replace"))


def count_lines(path: Path) -> int:
    """How many lines are not blank."""
    with unpacked(path) as file:
        first = file.readline().removeprefix(BOM).strip()
        return bool(first) + sum(1 for line in file if line.strip())


def json_array(path: Path) -> Iterator[Row]:
    """The elements of one JSON array. A syntax error ends it: what follows cannot be told apart."""
    with unpacked(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as file:
        number = 0
        text, position = _skip("", 0, file)
        text, position = _skip(text, position + 1, file)
        while text[position : position + 1] != "]":
            number += 1
            try:
                value, text, position = _element(text, position, file)
                text, position = _skip(text, position, file)
                if text[position : position + 1] not in (",", "]"):
                    raise ValueError("expected a comma or the closing bracket after it")
            except UnicodeDecodeError:
                yield Row(number, problem="not UTF-8")
                return
            except JSONDecodeError as error:
                yield Row(number, problem=f"invalid JSON: {error.msg}")
                return
            except (ValueError, RecursionError) as error:
                yield Row(number, problem=f"invalid JSON: {error}")
                return
            yield Row(number, value)
            if text[position] == ",":
                text, position = _skip(text, position + 1, file)
        text, position = _skip(text, position + 1, file)
        if position < len(text):
            raise UnreadableError("there is more after the closing bracket of the JSON array")


def _skip(text: str, position: int, file: TextIO) -> tuple[str, int]:
    """The text at hand and the position after white space, reading on where the text ends."""
    while True:
        match = WHITE_SPACE.match(text, position)
        assert match is not None, "the pattern matches nothing too"
        if match.end() < len(text):
            return text, match.end()
        text, position = file.read(READ_SIZE), 0
        if not text:
            return "", 0


def _element(text: str, position: int, file: TextIO) -> tuple[Any, str, int]:
    """The next value, the text at hand and the position after the value."""
    size = READ_SIZE
    while True:
        try:
            value, end = DECODER.raw_decode(text, position)
        except JSONDecodeError as error:
            unfinished = error.msg.startswith("Unterminated") or error.pos > len(text) - UNFINISHED_MARGIN
            more = file.read(size) if unfinished else ""
            if not more:
                raise
        else:
            more = file.read(size) if end == len(text) else ""
            if not more:
                return value, text, end
        text, position = text[position:] + more, 0
        size *= 2
