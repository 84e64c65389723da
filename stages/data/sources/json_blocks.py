"""JSON lines in blocks: by orjson as far as it reads and writes what `json` does, by `json` otherwise."""

from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO

from tunemill.stages.data.sources.blocks import block, text_of
from tunemill.stages.data.sources.json_helpers import helpers_for, lines_by_several
from tunemill.stages.data.sources.json_lines import is_blank, plain, row_of_line
from tunemill.stages.data.sources.json_parts import Lines, blocks_to_end, lines_of, texts_of
from tunemill.stages.data.sources.packings import packing_of
from tunemill.stages.data.sources.rows import Block, JoinedTexts, Row
from tunemill.stages.data.sources.unpacking import unpacked


def json_line_blocks(path: Path, skip: int) -> Iterator[Block]:
    """The rows after the first `skip`, as `json_lines` reads them and `json_text` writes them.

    Other processes help to read what is large.
    """
    with unpacked(path) as file:
        before = _pass(file, skip)
        helpers = 0 if packing_of(path) else helpers_for(path.stat().st_size - file.tell())
        found = lines_by_several(path, file.tell(), helpers) if helpers else _lines_to_end(file)
        with closing(found):
            for lines in found:
                if isinstance(lines, JoinedTexts):
                    yield Block(range(before + 1, before + 1 + len(lines)), lines, is_whole=True)
                else:
                    rows = [
                        (number, text)
                        for number, line in enumerate(lines, before + 1)
                        if (text := plain(line))
                    ]
                    if rows:
                        yield block([number for number, _ in rows], _rows(rows))
                before += len(lines)


def _pass(file: IO[bytes], rows: int) -> int:
    """Go behind so many rows. Returns how many lines they are."""
    lines = 0
    while rows and (line := file.readline()):
        lines += 1
        rows -= not is_blank(line)
    return lines


def _lines_to_end(file: IO[bytes]) -> Generator[Lines, None, None]:
    for data in blocks_to_end(file):
        yield lines_of(data)


def _rows(lines: list[tuple[int, bytes]]) -> list[bytes | Row]:
    """The rows on lines that are not blank, each with its number. Those that orjson cannot read are searched for."""
    texts = texts_of([text for _, text in lines])
    if texts is not None:
        return [*texts]
    if len(lines) == 1:
        return [text_of(row_of_line(*lines[0]))]
    half = len(lines) // 2
    return _rows(lines[:half]) + _rows(lines[half:])
