"""What is said of a machine that failed, and not of data or settings: the same work may go well another time."""

import errno
import re
from pathlib import Path

# How libraries say that memory ran out or that a GPU is lost. An assertion of a kernel is no such thing: the same data
# would fail in it again.
FAILED = re.compile(r"out of memory|OutOfMemoryError|MemoryError|CUDA error|NCCL", re.IGNORECASE)
ASSERTED = "device-side assert"


def machine_failed(text: str) -> bool:
    """Whether the end of a log says so."""
    return ASSERTED not in text and FAILED.search(text) is not None


def disk_full(path: Path) -> str:
    """What is said where there is no space left; `path` is a file of the artifact's logs."""
    return (
        f"the disk is full: no space left for {path.parent.parent}; nothing was published. Free some space, or "
        f"prune the store with `tunemill cache prune`, and run again"
    )


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
