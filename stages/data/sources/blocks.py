"""Rows as the JSON texts that they are kept as, many at a time: what a single row costs would be most of all."""

from collections.abc import Iterator

from tunemill.stages.data.sources.json_exactly import text_of_object
from tunemill.stages.data.sources.json_text import json_text, loose_text
from tunemill.stages.data.sources.rows import Block, Row, RowFile, RowSource
from tunemill.stages.data.sources.selection import pieces_of
from tunemill.stages.data.sources.split import Range

BLOCK_ROWS = 256
BLOCK_BYTES = 1 << 16


def text_of(row: Row) -> bytes | Row:
    """The row as it is kept, or with the problem that it has."""
    if row.problem is not None:
        return row
    try:
        return text_of_object(row.value) or json_text(row.value).encode()
    except ValueError as error:
        return Row(row.number, problem=str(error), text=loose_text(row.value))


def blocks_of(file: RowFile, skip: int) -> Iterator[Block]:
    """The rows of a file after the first `skip`."""
    if file.blocks is not None:
        yield from file.blocks(skip)
        return
    numbers: list[int] = []
    rows: list[bytes | Row] = []
    size = 0
    for row in file.read(skip):
        text = text_of(row)
        numbers.append(row.number)
        rows.append(text)
        size += len(text) if isinstance(text, bytes) else len(text.text)
        if len(rows) == BLOCK_ROWS or size >= BLOCK_BYTES:
            yield block(numbers, rows)
            numbers, rows, size = [], [], 0
    if rows:
        yield block(numbers, rows)


def block(numbers: list[int], rows: list[bytes | Row]) -> Block:
    """Rows of which some may have a problem."""
    return Block(numbers, rows, all(isinstance(row, bytes) for row in rows))


def blocks_of_ranges(source: RowSource, ranges: list[Range]) -> Iterator[tuple[RowFile, int, Block]]:
    """The rows of the ranges in order, each block with its file and the number of its first row there, from 1."""
    return pieces_of(source, ranges, blocks_of)
