"""Parts of a file of JSON lines as texts, by orjson: what it would read or write otherwise than `json` does is left.

Processes that help to read a file import nothing but this, so it imports little.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import orjson

from tunemill.stages.data.sources.json_exactly import MOST_LEVELS, are_written_alike, levels
from tunemill.stages.data.sources.rows import JoinedTexts

BLOCK_BYTES = 1 << 16
# Of the texts of a block that a process that helps writes for another.
LONGEST = 1 << 24
QUOTE = ord('"')
# The two bytes of a backslash and a u as one number.
ESCAPE = int.from_bytes(b"\\u", "little")
ESCAPED_QUOTE = b"\\u0022"


# Lines behind each other: the texts of their objects, or a list of them as they stand in the file.
Lines = JoinedTexts | list[bytes]


class Asked(NamedTuple):
    """The part of a file that begins at byte `start` is wanted, in place number `place` of those for texts."""

    start: int
    place: int


class Written(NamedTuple):
    """A block of `size` bytes at `start` of the file: the lengths of its texts, or None where it is left."""

    start: int
    size: int
    lengths: Sequence[int] | None


def blocks_to_end(file: IO[bytes]) -> Iterator[bytes]:
    """What is left of a file, in blocks of whole lines."""
    while data := file.read(BLOCK_BYTES):
        yield data if data.endswith(b"\n") else data + file.readline()


def blocks_of_part(file: IO[bytes], start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The lines that begin at `start` or behind it, and before `end`, in blocks, each with its place in the file."""
    file.seek(max(start - 1, 0))
    if start:
        # Not on and on: each part behind a long line looks only through itself for its end.
        passed = file.readline(end - start + 1)
        if not passed.endswith(b"\n"):
            return
        start += len(passed) - 1
    while start < end and (data := file.read(min(BLOCK_BYTES, end - start))):
        whole = data if data.endswith(b"\n") else data + file.readline()
        yield start, whole
        start += len(whole)


def lines_of(block: bytes) -> Lines:
    """The lines of a block, as texts where all of them can be."""
    lines = split_lines(block)
    texts = joined_texts_of(lines, block)
    return lines if texts is None else texts


def split_lines(block: bytes) -> list[bytes]:
    """The lines of a block, which end with a line feed and nothing else; `bytes.split` takes five times as long."""
    return BytesIO(block).readlines()


def part_reader(path: Path, part_bytes: int, places: Sequence[int]) -> Callable[[Asked], list[Written]]:
    """Reads parts of a file. `places` are open files for the texts, which are too many to be sent."""

    def read(asked: Asked) -> list[Written]:
        found, behind = [], 0
        with path.open("rb") as file:
            for start, block in blocks_of_part(file, asked.start, asked.start + part_bytes):
                texts = joined_texts_of(split_lines(block), block)
                if texts is None or len(texts.joined) > LONGEST:
                    found.append(Written(start, len(block), None))
                else:
                    _write(places[asked.place], texts.joined, behind)
                    found.append(Written(start, len(block), texts.lengths))
                    behind += len(texts.joined)
        return found

    return read


def _write(file: int, text: bytes, start: int) -> None:
    while text:
        written = os.pwrite(file, text, start)
        text, start = text[written:], start + written


def texts_of(lines: list[bytes]) -> list[bytes] | None:
    """Each line's object as `json_text` writes it. None where one of them is no object, or may be another one."""
    texts = joined_texts_of(lines, b"\n".join(lines))
    return None if texts is None else [*texts]


def joined_texts_of(lines: list[bytes], block: bytes) -> JoinedTexts | None:
    """The same; `block` are the lines in one.

    Meanwhile nobody looks for cycles, of which JSON has none: that would take a third of the time.
    """
    is_usual = gc.isenabled()
    gc.disable()
    try:
        return _joined_texts_of(lines, block)
    finally:
        if is_usual:
            gc.enable()


def _joined_texts_of(lines: list[bytes], block: bytes) -> JoinedTexts | None:
    try:
        values = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    if not _are_exact(values):
        return None
    texts = JoinedTexts.of(list(map(orjson.dumps, values)))
    return texts if _have_all_keys(block, texts.joined) else None


def _are_exact(values: list[Any]) -> bool:
    """Whether all are objects, and orjson has kept all numbers in them and writes them as `json` does."""
    if set(map(type, values)) != {dict}:
        return False
    return all(
        depth < MOST_LEVELS and are_written_alike(numbers)
        for depth, (_, numbers) in enumerate(levels(values))
    )


def _have_all_keys(read: bytes, written: bytes) -> bool:
    """Whether no key stood twice in an object of `read`: then there are fewer quotation marks in what is `written`.

    Nothing else changes their number but those that are read from escapes.
    """
    return _quotes(read) == _quotes(written) and not _has_escaped_quote(read)


def _quotes(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == QUOTE))


def _has_escaped_quote(text: bytes) -> bool:
    """Whether a quotation mark is escaped by its number. Pairs of bytes are looked at: much faster than `in`."""
    for part in (text, text[1:]):
        pairs = np.frombuffer(part, "<u2", len(part) // 2)
        are_escapes = (pairs == ESCAPE).tobytes()
        place = are_escapes.find(1)
        while place >= 0:
            if part.startswith(ESCAPED_QUOTE, 2 * place):
                return True
            place = are_escapes.find(1, place + 1)
    return False
