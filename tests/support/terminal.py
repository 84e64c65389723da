"""A pseudo-terminal: what a person sees of a command, and when."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ERASE_LINE = "\x1b[2K"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """What came out of a command that ran in a pseudo-terminal: pieces with the time they came at."""

    columns: int
    pieces: list[tuple[float, str]] = field(default_factory=list)
    returncode: int | None = None

    @property
    def text(self) -> str:
        """Everything, without colours and cursor movements."""
        drawn = "".join(piece for _, piece in self.pieces)
        return ESCAPES.sub("", drawn.replace(ERASE_LINE, "\n"))

    @property
    def lines(self) -> list[str]:
        """Every line that was ever drawn, the overdrawn ones too."""
        return [line.rstrip() for line in re.split(r"[\r\n]+", self.text) if line.strip()]

    def times(self, words: str) -> list[float]:
        """When pieces came that hold these words."""
        return [at for at, piece in self.pieces if words in ESCAPES.sub("", piece)]


def run_in_terminal(
    command: Sequence[str],
    cwd: Path,
    columns: int = 80,
    interrupt_when: Callable[[Terminal], bool] = lambda _: False,
    seconds: float = 120,
    typed: Sequence[tuple[str, str]] = (),
) -> Terminal:
    """Run the command in a pseudo-terminal of its own; press Ctrl-C once, when `interrupt_when` says so.

    `typed` are words to wait for, each behind those before, and the keys that are pressed then.
    """
    terminal = Terminal(columns)
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    process = subprocess.Popen(
        command,
        stdin=child,
        stdout=child,
        stderr=child,
        cwd=cwd,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(child)
    started, pressed = time.monotonic(), False
    to_type, seen = list(typed), 0
    while time.monotonic() - started < seconds:
        if not select.select([parent], [], [], 0.2)[0]:
            continue
        try:
            piece = os.read(parent, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        terminal.pieces.append((time.monotonic(), piece.decode(errors="replace")))
        if not pressed and interrupt_when(terminal):
            os.write(parent, b"\x03")
            pressed = True
        while to_type and (place := terminal.text.find(to_type[0][0], seen)) >= 0:
            seen = place + len(to_type[0][0])
            os.write(parent, to_type.pop(0)[1].encode())
    else:
        os.killpg(process.pid, signal.SIGKILL)
    os.close(parent)
    terminal.returncode = process.wait(10)
    return terminal
