"""A large file of JSON lines, read by this process and by some that help it."""

import heapq
import os
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tunemill.stages.data.rows.workers import Line, cores, send, started
from tunemill.stages.data.sources.json_parts import (
    Asked,
    Lines,
    Written,
    blocks_of_part,
    lines_of,
    part_reader,
    split_lines,
)
from tunemill.stages.data.sources.rows import JoinedTexts

PART_BYTES = 1 << 20
# Much of a smaller file is read by the time that a process that helps has started.
LEAST_BYTES = 1 << 27
# More of them would wait for the one that writes the rows.
MOST_HELPERS = 3
# Parts that each of them has at hand, and parts that are kept because one before them is not read yet.
AHEAD, KEPT = 3, 4


@dataclass
class Helper:
    """A process that reads parts of a file into `places`, which are open files; `asked` are not read yet."""

    line: Line
    places: list[int]
    free: list[int] = field(default_factory=list)
    asked: deque[Asked] = field(default_factory=deque)


@dataclass
class Reading:
    """A file in parts: where those begin that nobody reads yet, as a heap, and the lines of those that are read."""

    file: IO[bytes]
    todo: list[int]
    helpers: list[Helper]
    done: dict[int, Iterator[Lines]] = field(default_factory=dict)


def helpers_for(size: int) -> int:
    """How many processes should help to read so many bytes."""
    return min(cores() - 1, MOST_HELPERS) if size >= LEAST_BYTES else 0


def lines_by_several(path: Path, start: int, helpers: int) -> Generator[Lines, None, None]:
    """The lines from byte `start` of a file, in order.

    What the processes that help do not read, because they could not be started or are gone, is read here.
    """
    size = path.stat().st_size
    parts = range(start, size, PART_BYTES)
    with ExitStack() as stack:
        reading = Reading(stack.enter_context(path.open("rb")), list(parts), [])
        with suppress(OSError):
            reading.helpers += _helpers(path, size, helpers, stack)
        for part in parts:
            while part not in reading.done:
                _go_on(reading, part)
            yield from reading.done.pop(part)


def _helpers(path: Path, size: int, count: int, stack: ExitStack) -> list[Helper]:
    """Processes that help, which are asked for what is behind the end of the file: they answer when they are there."""
    files = [stack.enter_context(TemporaryFile()) for _ in range(count * AHEAD)]  # noqa: SIM115
    places = [file.fileno() for file in files]
    lines = stack.enter_context(started(part_reader.__module__, count, places))
    helpers = [Helper(line, places[number::count]) for number, line in enumerate(lines)]
    for helper in helpers:
        send(helper.line, (part_reader, (path, PART_BYTES, helper.places)))
        for place in range(AHEAD):
            _ask(helper, Asked(size, place))
    return helpers


def _go_on(reading: Reading, part: int) -> None:
    """Take what has been read and ask for more. Then read `part`, or another that may be kept, here; else wait."""
    for helper in [*reading.helpers]:
        _exchange(reading, helper)
    if part in reading.done:
        return
    if reading.todo and reading.todo[0] == part:
        # Not before its lines are asked for: lines that are used at once are still in the processor's cache.
        reading.done[part] = _read(reading.file, heapq.heappop(reading.todo))
    elif reading.todo and len(reading.done) < KEPT:
        other = heapq.heappop(reading.todo)
        reading.done[other] = iter([*_read(reading.file, other)])
    else:
        wait([helper.line.connection for helper in reading.helpers])


def _exchange(reading: Reading, helper: Helper) -> None:
    """Take what a helper has read, and ask it for more. One that is gone, or cannot go on, is not asked again."""
    while helper.asked and helper.line.connection.poll():
        try:
            written, error = helper.line.connection.recv()
        except (EOFError, ConnectionResetError) as gone:
            error = gone
        if error is not None:
            reading.helpers.remove(helper)
            for asked in helper.asked:
                heapq.heappush(reading.todo, asked.start)
            return
        asked = helper.asked.popleft()
        reading.done[asked.start] = _texts(reading.file, helper, asked.place, written)
        if not written:
            helper.free.append(asked.place)
    while helper.free and reading.todo:
        _ask(helper, Asked(heapq.heappop(reading.todo), helper.free.pop()))
    if not helper.asked and not reading.todo:
        # It ends while the last parts are written.
        helper.line.connection.close()
        reading.helpers.remove(helper)


def _ask(helper: Helper, asked: Asked) -> None:
    helper.asked.append(asked)
    send(helper.line, asked)


def _read(file: IO[bytes], start: int) -> Iterator[Lines]:
    """The lines of a part."""
    return (lines_of(block) for _, block in blocks_of_part(file, start, start + PART_BYTES))


def _texts(file: IO[bytes], helper: Helper, place: int, written: list[Written]) -> Iterator[Lines]:
    """The lines of a part that a helper has read; afterwards its place is free."""
    behind = 0
    for block in written:
        if block.lengths is None:
            file.seek(block.start)
            yield split_lines(file.read(block.size))
        else:
            size = sum(block.lengths)
            yield JoinedTexts(os.pread(helper.places[place], size, behind), block.lengths)
            behind += size
    if written:
        helper.free.append(place)
