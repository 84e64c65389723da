"""Runs a command in a process group of its own, and ends the group as soon as who started it is gone.

`python guard.py LIFELINE COMMAND...`: LIFELINE is the reading end of a pipe of which only the starter has the other.
Imports nothing of this project: it is run by its path.
"""

import os
import signal
import subprocess
import sys
import threading


def _end_with_starter(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(lifeline: int, command: list[str]) -> int:
    """The exit code of the command. Whoever ends the group asks it to end first: this only waits for it."""
    # A handler, unlike SIG_IGN, does not go on to the command.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_starter, args=(lifeline,), daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
