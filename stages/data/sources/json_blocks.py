"""JSON lines in blocks, by orjson: what it would read or write otherwise than `json` does is left to `json`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tunemill.stages.data.sources.blocks import BLOCK_BYTES, block, text_of
from tunemill.stages.data.sources.json_exactly import MOST_LEVELS, are_written_alike, levels
from tunemill.stages.data.sources.json_lines import plain, row_of_line
from tunemill.stages.data.sources.rows import Block, Row
from tunemill.stages.data.sources.unpacking import unpacked

QUOTE, BACKSLASH, SMALL_U = b'"\\u'
QUOTE_DIGITS = b"0022"


def json_line_blocks(path: Path, skip: int) -> Iterator[Block]:
    """The rows after the first `skip`, as `json_lines` reads them and `json_text` writes them."""
    before = 0
    with unpacked(path) as file:
        while lines := file.readlines(BLOCK_BYTES):
            texts = None if skip else texts_of(lines)
            if texts is not None:
                yield Block(range(before + 1, before + 1 + len(texts)), texts, is_whole=True)
            else:
                found = [
                    (number, text) for number, line in enumerate(lines, before + 1) if (text := plain(line))
                ]
                rows = found[skip:]
                skip = max(skip - len(found), 0)
                if rows:
                    yield block([number for number, _ in rows], _rows(rows))
            before += len(lines)


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
