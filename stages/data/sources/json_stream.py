"""JSON values behind each other in one stretch of text, read on as far as it takes: those of an array, or objects."""

import io
import json
import re
from collections.abc import Iterator
from json import JSONDecodeError
from pathlib import Path
from typing import IO, Any, TextIO

from tunemill.stages.data.rows.shapes import MESSAGE_FIELDS
from tunemill.stages.data.sources.json_values import DECODER, check_kept, problem
from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import READ_SIZE, unpacked

# A JSON error this close to the end of what has been read may only mean that the value goes on.
UNFINISHED_MARGIN = 16
# How many characters are looked through for the end of a broken value.
LONGEST_BROKEN = 1 << 26
WHITE_SPACE = re.compile(r"[ \t\r\n]*")
# Files put behind each other bring their byte order marks.
BETWEEN_VALUES = re.compile(r"[ \t\r\n\ufeff]*")
# A quotation mark by itself begins a string that does not end in its line.
MARKS = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|["\[\]{},]')
PAIRS = {"[": "]", "{": "}"}
# What can be read but not be kept, such as NaN and control characters in strings: its end is known.
LENIENT = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
NOT_READ = "; where it ends cannot be told, so what comes after it is not read"


class TextWindow:
    """The part of a text that is at hand. Each byte that is not UTF-8 is half a surrogate pair in it.

    `position` is where the next value is looked for in `text`, `line` the line of that place.
    """

    def __init__(self, binary: IO[bytes]) -> None:
        self.text, self.position, self.line = "", 0, 1
        self._file: TextIO = io.TextIOWrapper(
            binary, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )

    def advance(self, position: int) -> None:
        """Go to a later place of the text at hand."""
        self.line += self.text.count("\n", self.position, position)
        self.position = position

    def read_on(self, size: int) -> bool:
        """Take more text, and leave what has been passed. Returns whether there was more."""
        more = self._file.read(size)
        if more:
            self.text, self.position = self.text[self.position :] + more, 0
        return bool(more)

    def next(self, space: re.Pattern[str] = WHITE_SPACE) -> str:
        """Go to the next character that is not white space, and return it; "" at the end."""
        while True:
            match = space.match(self.text, self.position)
            assert match is not None, "the pattern matches nothing too"
            self.advance(match.end())
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.read_on(READ_SIZE):
                return ""


def json_array(path: Path) -> Iterator[Row]:
    """The elements of one JSON array. Where a broken one has no end that can be told, it is the last row."""
    with unpacked(path) as binary:
        window = TextWindow(binary)
        window.next()
        window.advance(window.position + 1)
        number, mark = 0, window.next()
        while mark != "]":
            number += 1
            row, goes_on = _row(window, number, in_array=True)
            yield row
            if not goes_on:
                return
            mark = window.next()
            if mark == ",":
                window.advance(window.position + 1)
                mark = window.next()
        window.advance(window.position + 1)
        if window.next():
            reason = (
                f"invalid JSON: there is more after the closing bracket of the array (line {window.line})"
            )
            yield Row(number + 1, problem=reason, text=_shown(window.text[window.position :]))


def json_objects(path: Path) -> Iterator[Row]:
    """Objects with nothing but white space between them, each over any number of lines.

    A single one that does nothing but hold an array of objects is no row: those are.
    """
    with unpacked(path) as binary:
        window = TextWindow(binary)
        number, goes_on = 0, True
        while goes_on and window.next(BETWEEN_VALUES):
            number += 1
            row, goes_on = _row(window, number, in_array=False)
            field = _wrapping(row.value) if number == 1 else None
            if field is not None and not window.next(BETWEEN_VALUES):
                reason = (
                    f"the whole file is one object, whose field {field!r} holds an array of objects; rows are one JSON "
                    "object a line, or one JSON array of objects: keep the array alone"
                )
                row = Row(number, problem=reason, text=json.dumps(row.value, ensure_ascii=False))
            yield row


def _wrapping(value: Any) -> str | None:
    """The only field of an object, if it is an array of objects that are no messages."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, items),) = value.items()
    are_objects = isinstance(items, list) and items and all(isinstance(item, dict) for item in items)
    return name if are_objects and name not in MESSAGE_FIELDS else None


def _row(window: TextWindow, number: int, *, in_array: bool) -> tuple[Row, bool]:
    """The row at the place of the window, which goes behind it, and whether there the structure can be followed."""
    line = window.line
    value, reason, end = _read(window, in_array=in_array)
    text = window.text[window.position : end]
    if end is not None:
        window.advance(end)
        if in_array and window.next() not in (",", "]"):
            reason = (
                reason
                or f"invalid JSON: expected a comma or the closing bracket after it (line {window.line})"
            )
            end = _end_of_broken(window, in_array=True)
            text += window.text[window.position : end]
            window.advance(len(window.text) if end is None else end)
    reason = _bad_byte(text, line) or reason
    if reason is None:
        return Row(number, value), True
    return Row(
        number, problem=reason if end is not None else reason + NOT_READ, text=_shown(text)
    ), end is not None


def _read(window: TextWindow, *, in_array: bool) -> tuple[Any, str | None, int | None]:
    """The value at the place of the window, or why it cannot be used, and where it ends, as far as that can be told."""
    line = window.line
    try:
        value, end = _value(window, DECODER)
    except JSONDecodeError as error:
        line += window.text.count("\n", window.position, error.pos)
        return None, problem(error, f"line {line}"), _end_of_unkept(window, in_array=in_array)
    except (ValueError, RecursionError) as error:
        return None, f"{problem(error)} (line {line})", _end_of_unkept(window, in_array=in_array)
    try:
        check_kept(window.text[window.position : end], value)
    except ValueError as error:
        return None, f"{error} (line {line})", end
    return value, None, end


def _value(window: TextWindow, decoder: json.JSONDecoder) -> tuple[Any, int]:
    """The value at the place of the window, and where it ends in the text at hand, which may grow for it."""
    size = READ_SIZE
    while True:
        try:
            value, end = decoder.raw_decode(window.text, window.position)
        except JSONDecodeError as error:
            near_end = error.pos > len(window.text) - UNFINISHED_MARGIN
            if not (error.msg.startswith("Unterminated") or near_end) or not window.read_on(size):
                raise
        else:
            if end < len(window.text) or not window.read_on(size):
                return value, end
        size *= 2


def _end_of_unkept(window: TextWindow, *, in_array: bool) -> int | None:
    """Where a value ends that cannot be used. None where that cannot be told."""
    try:
        return _value(window, LENIENT)[1]
    except (ValueError, RecursionError):
        return _end_of_broken(window, in_array=in_array)


def _end_of_broken(window: TextWindow, *, in_array: bool) -> int | None:
    """Where something ends that is no value, by its brackets and strings. None where they do not match."""
    size = READ_SIZE
    while True:
        end, is_unfinished = _matched(window.text, window.position, in_array=in_array)
        if not is_unfinished or len(window.text) > LONGEST_BROKEN or not window.read_on(size):
            return end
        size *= 2


def _matched(text: str, start: int, *, in_array: bool) -> tuple[int | None, bool]:
    """Where what begins at `start` ends, and whether the end of the text came before that.

    In an array the end is a comma or the array's own bracket, else the bracket that closes the first one.
    """
    expected: list[str] = []
    for match in MARKS.finditer(text, start):
        mark = match[0]
        if mark == '"':
            return None, "\n" not in text[match.start() :]
        if mark in PAIRS:
            expected.append(PAIRS[mark])
        elif in_array and not expected and mark in (",", "]"):
            return match.start(), False
        elif mark in ("]", "}"):
            if not expected or expected.pop() != mark:
                return None, False
            if not in_array and not expected:
                return match.end(), False
    return None, True


def _bad_byte(text: str, line: int) -> str | None:
    """What is said of a text with bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        line += text.count("\n", 0, error.start)
        return f"not UTF-8 (line {line})"
    return None


def _shown(text: str) -> str:
    """The text with a mark for each byte that is not UTF-8."""
    return text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="replace")


def has_long_object(path: Path) -> bool:
    """Whether the first value of a file, an object that its first line does not end, goes on over the next lines."""
    with unpacked(path) as binary:
        window = TextWindow(binary)
        window.next(BETWEEN_VALUES)
        try:
            _value(window, LENIENT)
        except (ValueError, RecursionError) as error:
            # A file that was cut off, unless the second line begins like a row.
            is_cut = isinstance(error, JSONDecodeError) and not window.text[error.pos :].strip()
            second = window.text[window.position :].partition("\n")[2].lstrip()
            return is_cut and not second.startswith(("{", "["))
        return True
