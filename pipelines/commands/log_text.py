"""The text of a log: its end without the rest, as raw bytes in a pipe and without what a terminal would obey."""

import codecs
import os
import re
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

from tunemill.pipelines.config.spans import escaped

BLOCK = 1 << 16
POLL_SECONDS = 0.2
# As the launcher cuts lines: progress bars end theirs with a carriage return.
LINE_END = re.compile(rb"\n|\r(?!\n)")


def start_of_end(file: BinaryIO, lines: int) -> int:
    """Where the last `lines` lines begin, in bytes. Reads from the end, no further than needed."""
    position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return position
    # The last end of a line starts none.
    ends_left, after = lines, b""
    is_last = True
    while position:
        start = max(0, position - BLOCK)
        file.seek(start)
        block = file.read(position - start)
        # Of the block behind it one byte, to see whether a carriage return stands alone.
        found = [match.start() for match in LINE_END.finditer(block + after) if match.start() < len(block)]
        for at in reversed(found):
            if not (is_last and at == len(block) - 1):
                ends_left -= 1
            is_last = False
            if ends_left == 0:
                return start + at + 1
        is_last = False
        position, after = start, block[:1]
    return 0


def copy(file: BinaryIO, write: Callable[[bytes], None]) -> int:
    """Everything from here to the end; how many bytes that were."""
    copied = 0
    while chunk := file.read(BLOCK):
        write(chunk)
        copied += len(chunk)
    return copied


def follow(file: BinaryIO, write: Callable[[bytes], None], goes_on: Callable[[], bool]) -> int:
    """Everything from here until nothing goes on and all is copied; how many bytes that were."""
    copied = 0
    while True:
        # Asked first: what was written before the end is still read.
        more = goes_on()
        copied += copy(file, write)
        if not more:
            return copied
        time.sleep(POLL_SECONDS)


def writer() -> Callable[[bytes], None]:
    """Writes a log to stdout, each piece at once: raw in a pipe; on a terminal with escapes made visible."""
    binary = sys.stdout.buffer
    if not sys.stdout.isatty():

        def write(chunk: bytes) -> None:
            binary.write(chunk)
            binary.flush()

        return write
    encoding = sys.stdout.encoding or "utf-8"
    pieces = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    ended_with_return = False

    def show(chunk: bytes) -> None:
        nonlocal ended_with_return
        text = pieces.decode(chunk)
        if ended_with_return:
            text = text.removeprefix("\n")
        ended_with_return = text.endswith("\r") or (ended_with_return and not text)
        # A carriage return alone would let a line be drawn over another one.
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        binary.write(escaped(lines, keep="\n\t").encode(encoding, "backslashreplace"))
        binary.flush()

    return show
