"""Work that other processes can do."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tunemill.stages.errors import SettingError


def started_at(name: str, refused: int | None = None) -> Callable[[tuple[int, float]], tuple[int, int]]:
    """Returns, after so many seconds, the number it is given and the process that it is in; one number it refuses."""
    if name == "no":
        raise SettingError("no such work")

    def work(item: tuple[int, float]) -> tuple[int, int]:
        number, seconds = item
        time.sleep(seconds)
        if number == refused:
            raise SettingError(f"number {number} is not wanted")
        return number, os.getpid()

    return work


def ended(process: int) -> bool:
    """Whether a process is gone, or only waits to be asked how it ended."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"
