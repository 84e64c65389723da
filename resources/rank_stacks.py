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
# Its innermost calls of others are in C++. What it is within says nothing: so is the whole model.
WRAPPER = "/torch/nn/parallel/distributed.py"
# All of a rank lies within this, which waits for nobody.
STARTS = "/torch/distributed/elastic/"
# Where threads are that have nothing to do; whatever else one does, somebody may wait for.
IDLE = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py")
LIFELINE = "_die_with_agent"
# Python's own, and those that were installed.
LIBRARIES = (f"{Path(os.__file__).parent}/", "/site-packages/")

Frames = tuple[tuple[str, int, str], ...]
"""File, line and function, the innermost call first."""


def answer(file: Path) -> None:
    """From now on this process writes its calls into a file when it is asked."""
    faulthandler.register(SIGNAL, file=file.open("w"), all_threads=True)


def ask(asked: Mapping[int, tuple[int, Path]]) -> dict[int, list[Frames]]:
    """What the threads of each of some processes do, the main one last: rank -> its process, and its answers' file.

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
        rank: threads_of(text.encode()[before[rank] :].decode(errors="replace"))
        for rank, text in texts.items()
    }
    return {rank: threads for rank, threads in found.items() if threads and threads[-1]}


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def threads_of(text: str) -> list[Frames]:
    """The calls of each thread, those of the main one last, as faulthandler writes them."""
    return [
        tuple((file, int(line), name) for file, line, name in FRAME.findall(block))
        for block in BLOCK.split(text)[1:]
    ]


def idle(thread: Frames) -> bool:
    """Whether a thread has nothing to do."""
    return any(name == LIFELINE for *_, name in thread) or thread[0][0].endswith(IDLE)


def waits(frames: Frames) -> bool:
    """Whether a process is in a call that waits for other ranks, or, for all that is known, may be."""
    return WRAPPER in frames[0][0] or _within(frames[:4])


def may_wait(frames: Frames) -> bool:
    """Whether a process may wait for other ranks, however far within."""
    return waits(frames) or _within(frames)


def _within(frames: Frames) -> bool:
    return any(BACKWARD in file or (WAITS in file and STARTS not in file) for file, *_ in frames)


def place(frames: Frames) -> str:
    """Where it is, in words: in the innermost call, and in that of no library which led there."""
    own = next((frame for frame in frames if not any(one in frame[0] for one in LIBRARIES)), frames[0])
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
        f"no process has moved on for {seconds:.0f} s: {said}. If one hangs that computes, or that waits for a "
        f"disk, the network or another program, all end when another has waited for it ddp_timeout seconds"
    )
