"""JSON lines in blocks, by orjson: what it would read or write otherwise than `json` does is left to `json`."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tunemill.stages.data.sources.blocks import BLOCK_BYTES, block, text_of
from tunemill.stages.data.sources.json_lines import plain, row_of_line
from tunemill.stages.data.sources.rows import Block, Row
from tunemill.stages.data.sources.unpacking import unpacked

# orjson writes no more than 254 levels.
MOST_LEVELS = 100
# A whole number that orjson cannot keep becomes a fraction, and then it is above this.
LARGEST_FRACTION = 1e18
QUOTE, BACKSLASH, SMALL_U = b'"\\u'
WRITTEN_QUOTE = b"\\u0022"


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
    level = values
    kinds = set(map(type, level))
    if kinds != {dict}:
        return False
    for _ in range(MOST_LEVELS):
        # What is in them, keys too: much faster than to go through each of them.
        level = gc.get_referents(*level)
        kinds = set(map(type, level))
        if float in kinds and not _are_written_alike([value for value in level if type(value) is float]):
            return False
        if dict not in kinds and list not in kinds:
            return True
        level = [value for value in level if type(value) is dict or type(value) is list]
    return False


def _are_written_alike(numbers: list[float]) -> bool:
    if max(map(abs, numbers)) > LARGEST_FRACTION:
        return False
    return orjson.dumps(numbers) == f"[{','.join(map(repr, numbers))}]".encode()


def _have_all_keys(read: bytes, written: bytes) -> bool:
    """Whether no key stood twice in an object of `read`: then there are fewer quotation marks in what is `written`.

    Nothing else changes their number but those that are read from escapes.
    """
    before, after = (np.frombuffer(text, np.uint8) for text in (read, written))
    has_escapes = bool(((before[:-1] == BACKSLASH) & (before[1:] == SMALL_U)).any())
    if has_escapes and WRITTEN_QUOTE in read:
        return False
    return bool(np.count_nonzero(before == QUOTE) == np.count_nonzero(after == QUOTE))
