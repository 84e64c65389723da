"""Files that are there whole and on the disk, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def settled(path: Path) -> Iterator[Path]:
    """Where to write; what was written takes the name `path` once it is on the disk, and its folder knows of it."""
    part = path.with_name(f"{path.name}.part")
    yield part
    flush(part)
    part.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
