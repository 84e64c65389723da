"""JSON lines in blocks, by orjson: what it would read or write otherwise than `json` does is left to `json`."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import orjson

from tunemill.stages.data.rows.workers import in_workers, started, workers_for
from tunemill.stages.data.sources.blocks import BLOCK_BYTES, block, text_of
from tunemill.stages.data.sources.json_exactly import MOST_LEVELS, are_written_alike, levels
from tunemill.stages.data.sources.json_lines import plain, row_of_line
from tunemill.stages.data.sources.packings import packing_of
from tunemill.stages.data.sources.rows import Block, Row
from tunemill.stages.data.sources.unpacking import unpacked

# As many bytes of a file as a process takes at a time.
PART_BYTES = 1 << 23
QUOTE, BACKSLASH, SMALL_U = b'"\\u'
QUOTE_DIGITS = b"0022"


class Part(NamedTuple):
    """Bytes `start` to `end` of a file, which are whole lines."""

    start: int
    end: int


class Found(NamedTuple):
    """The rows in a part of a file, their lines counted from its beginning, and how many lines it has."""

    blocks: list[Block]
    lines: int


def json_line_blocks(path: Path, skip: int) -> Iterator[Block]:
    """The rows after the first `skip`, as `json_lines` reads them and `json_text` writes them.

    Large files are read by several processes.
    """
    workers = 1 if skip or packing_of(path) else workers_for(path.stat().st_size // PART_BYTES, None)
    if workers == 1:
        with unpacked(path) as file:
            yield from (part for part, _ in _blocks(file, skip) if part.rows)
        return
    before = 0
    with started(__name__, workers) as lines:
        for found in in_workers(_parts(path), part_reader, (path,), lines):
            for part in found.blocks:
                yield _behind(before, part)
            before += found.lines


def _behind(lines: int, block: Block) -> Block:
    """A block of a part, behind so many lines."""
    numbers = [lines + number for number in block.numbers]
    if block.is_whole:
        return replace(block, numbers=numbers)
    rows = [row if isinstance(row, bytes) else row._replace(number=lines + row.number) for row in block.rows]
    return replace(block, numbers=numbers, rows=rows)


def part_reader(path: Path) -> Callable[[Part], Found]:
    """Reads parts of a file."""

    def read(part: Part) -> Found:
        with path.open("rb") as file:
            file.seek(part.start)
            lines = BytesIO(file.read(part.end - part.start))
        found = list(_blocks(lines, 0))
        return Found([block for block, _ in found if block.rows], found[-1][1] if found else 0)

    return read


def _parts(path: Path) -> Iterator[Part]:
    """A file in parts that end with a line."""
    size = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < size:
            file.seek(min(start + PART_BYTES, size))
            file.readline()
            yield Part(start, file.tell())
            start = file.tell()


def _blocks(file: IO[bytes], skip: int) -> Iterator[tuple[Block, int]]:
    """The rows after the first `skip`, with how many lines have been read."""
    before = 0
    while lines := file.readlines(BLOCK_BYTES):
        texts = None if skip else texts_of(lines)
        first = before + 1
        before += len(lines)
        if texts is not None:
            yield Block(range(first, before + 1), texts, is_whole=True), before
        else:
            found = [(number, text) for number, line in enumerate(lines, first) if (text := plain(line))]
            rows = found[skip:]
            skip = max(skip - len(found), 0)
            yield block([number for number, _ in rows], _rows(rows) if rows else []), before


def _rows(lines: list[tuple[int, bytes]]) -> list[bytes | Row]:
    """The rows on lines that are not blank, each with its number. Those that orjson cannot read are searched for."""
    texts = texts_of([text for _, text in lines])
    if texts is not None:
        return [*texts]
    if len(lines) == 1:
        return [text_of(row_of_line(*lines[0]))]
    half = len(lines) // 2
    return _rows(lines[:half]) + _rows(lines[half:])


def texts_of(lines: list[bytes]) -> list[bytes] | None:
    """Each line's object as `json_text` writes it. None where one of them is no object, or may be another one."""
    try:
        values = list(map(orjson.loads, lines))
    except orjson.JSONDecodeError:
        return None
    if not _are_exact(values):
        return None
    texts = list(map(orjson.dumps, values))
    return texts if _have_all_keys(b"".join(lines), b"".join(texts)) else None


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
    before, after = np.frombuffer(read, np.uint8), np.frombuffer(written, np.uint8)
    if np.count_nonzero(before == QUOTE) != np.count_nonzero(after == QUOTE):
        return False
    escapes = np.flatnonzero((before[:-1] == BACKSLASH) & (before[1:] == SMALL_U))
    for place, digit in enumerate(QUOTE_DIGITS, 2):
        # Four digits stand there, or it would be no JSON.
        escapes = escapes[before[escapes + place] == digit]
    return not escapes.size
