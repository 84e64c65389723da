"""What comes through a pipe, cut into lines."""

import re
from collections.abc import Callable

# In bytes: what has no end by then is written as it is. No secret is as long, but one may be cut in two.
LONGEST_LINE = 1 << 20


class Lines:
    """Cuts what comes through a pipe into lines, each for `take` as soon as it has ended, and not far beyond.

    With `keep_ends` with their ends, of which a carriage return is one: progress bars write no other.
    """

    def __init__(self, take: Callable[[str], None], *, keep_ends: bool = False) -> None:
        self._take = take
        self._end = re.compile(rb"[\r\n]" if keep_ends else rb"\n")
        self._keep_ends = keep_ends
        self._pending = b""

    def add(self, chunk: bytes) -> None:
        """More has come."""
        self._pending += chunk
        start = 0
        for end in self._end.finditer(self._pending):
            self._give(self._pending[start : end.end() if self._keep_ends else end.start()])
            start = end.end()
        self._pending = self._pending[start:]
        if self._keep_ends and len(self._pending) > LONGEST_LINE:
            self.finish()

    def finish(self) -> None:
        """Nothing more will come."""
        if self._pending and self._keep_ends:
            self._give(self._pending)
            self._pending = b""

    def _give(self, line: bytes) -> None:
        self._take(line.decode(errors="replace"))
