"""Where in its code a rank is. Its process is asked by a signal, which one answers too that holds Python's lock."""

import faulthandler
import os
import re
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

# No library that trains has a use for it. It ends a process that has not called `answer`.
SIGNAL = signal.SIGRTMIN + 7
ANSWER_SECONDS, POLL_SECONDS = 1.0, 0.05
BLOCK = re.compile(r"^.*\(most recent call first\):\n", re.MULTILINE)
FRAME = re.compile(r'^  File "(.+)", line (\d+) in (.+)$', re.MULTILINE)
# Where a process is that waits for others, and one that computes gradients or waits for those of others.
WAITS, BACKWARD = "/torch/distributed/", "/torch/autograd/"
LIBRARIES = "/site-packages/"

Frames = tuple[tuple[str, int, str], ...]
"""File, line and function, the innermost call first."""


def answer(file: Path) -> None:
    """From now on this process writes its calls into a file when it is asked."""
    faulthandler.register(SIGNAL, file=file.open("w"), all_threads=True)


def ask(asked: Mapping[int, tuple[int, Path]]) -> dict[int, Frames]:
    """What the main thread of each of some processes does: rank -> its process, and the file that it answers in.

    Those that do not answer within a second, such as stopped ones, are left out.
    """
    before = {rank: _size(file) for rank, (_, file) in asked.items()}
    for pid, _ in asked.values():
        with suppress(ProcessLookupError):
            os.kill(pid, SIGNAL)
    until = time.monotonic() + ANSWER_SECONDS
    sizes: dict[int, int] = {}
    while time.monotonic() < until:
        time.sleep(POLL_SECONDS)
        now = {rank: _size(file) for rank, (_, file) in asked.items()}
        if now == sizes and all(now[rank] > size for rank, size in before.items()):
            break
        sizes = now
    texts = {rank: file.read_text(errors="replace") for rank, (_, file) in asked.items() if file.is_file()}
    found = {
        rank: frames_of(text.encode()[before[rank] :].decode(errors="replace"))
        for rank, text in texts.items()
    }
    return {rank: frames for rank, frames in found.items() if frames}


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def frames_of(text: str) -> Frames:
    """The calls of the main thread, which faulthandler writes last."""
    last = BLOCK.split(text)[-1]
    return tuple((file, int(line), name) for file, line, name in FRAME.findall(last))


def waits(frames: Frames) -> bool:
    """Whether a process is in a call that waits for other ranks, or, for all that is known, may be."""
    return any(WAITS in file or BACKWARD in file for file, *_ in frames[:4])


def place(frames: Frames) -> str:
    """Where it is, in words: in the innermost call, and in that of no library which led there."""
    own = next((frame for frame in frames if LIBRARIES not in frame[0]), frames[0])
    return " in a call from ".join(
        f"{file}:{line} ({name})" for file, line, name in dict.fromkeys((frames[0], own))
    )


def told(places: Mapping[int, Frames], seconds: float) -> str:
    """Of ranks none of which has moved on for so many seconds: those first that do not wait for others."""
    order = sorted(places, key=lambda rank: (waits(places[rank]), rank))
    said = "; ".join(
        f"rank {rank} {'waits for others, or computes gradients,' if waits(places[rank]) else 'is'} at "
        f"{place(places[rank])}"
        for rank in order
    )
    return (
        f"no process has moved on for {seconds:.0f} s: {said}. If one hangs, all end when another has waited for it "
        f"ddp_timeout seconds"
    )
