"""Text files that a user hands us: UTF-8, whose byte order mark is no part of the text."""

import codecs
import io
import tokenize
from pathlib import Path

from tunemill.stages.errors import SourceError

# What Windows writes before a text. In a chat template it would stand at the beginning of every row.
MARK = "\ufeff"
# The longer marks first: that of UTF-32 begins like that of UTF-16.
OTHER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def text_of_file(path: Path) -> str:
    r"""A file's text without its byte order mark, every end of a line as \n.

    Raises OSError, and SourceError for bytes that are no UTF-8, with their line.
    """
    data = path.read_bytes()
    if reason := fault_of_bytes(data):
        raise SourceError(f"{path}, {reason}")
    return without_mark(data.decode("utf-8")).replace("\r\n", "\n").replace("\r", "\n")


def without_mark(text: str) -> str:
    """A text without byte order marks before it."""
    return text.lstrip(MARK)


def fault_of_text_file(path: Path) -> str | None:
    """Why a file that is there is no text: its name, the line (from 1), and the fix; None where it is one."""
    reason = fault_of_bytes(path.read_bytes())
    return None if reason is None else f"{path}, {reason}"


def fault_of_code(path: Path) -> str | None:
    """As `fault_of_text_file`, of Python, which may declare another encoding in its first two lines (PEP 263)."""
    data = path.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError:
        encoding = "utf-8"
    reason = fault_of_bytes(data) if encoding.startswith("utf-8") else None
    return None if reason is None else f"{path}, {reason}"


def fault_of_bytes(data: bytes) -> str | None:
    """Which line of these bytes is no UTF-8, and the fix; None where all are."""
    for mark, name in OTHER_MARKS.items():
        if data.startswith(mark):
            return f"line 1: the file is {name}; save it as UTF-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return f"line {line}: the byte 0x{data[error.start]:02x} is no UTF-8; save the file as UTF-8"
    nothing = data.find(b"\0")
    if nothing >= 0:
        line = data.count(b"\n", 0, nothing) + 1
        return f"line {line}: a zero byte, which no text has (UTF-16 does); save the file as UTF-8"
    return None
