"""The contents of compressed files."""

import bz2
import gzip
import io
import lzma
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from tunemill.stages.data.sources import zips
from tunemill.stages.data.sources.packings import (
    TAR,
    TAR_HEAD,
    WIDE,
    is_tar,
    is_wide,
    packing_of,
    packing_of_start,
)
from tunemill.stages.data.sources.zips import only_member

READ_SIZE = 1 << 20


class UnreadableError(ValueError):
    """A file as a whole cannot be read; the message says why, without naming the file."""


# What the readers, the unpackers and Arrow raise when a file is cut off or damaged, or names its columns in no UTF-8.
DAMAGES = (
    UnreadableError,
    UnicodeDecodeError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    *zips.DAMAGES,
    pa.ArrowException,
)


@contextmanager
def unpacked(path: Path) -> Iterator[io.BufferedReader]:
    """The contents of a file, unpacked while they are read.

    Raises UnreadableError for a zip of several files, a tar archive, and what is packed twice.
    """
    packing = packing_of(path)
    with _opened(path, packing) as file:
        head = file.peek(TAR_HEAD)
        if is_tar(head):
            raise UnreadableError(TAR)
        if packing is not None and (inner := packing_of_start(head)) is not None:
            raise UnreadableError(f"packed twice, with {inner} inside of {packing}; unpack it once")
        yield file


@contextmanager
def unpacked_text(path: Path) -> Iterator[io.BufferedReader]:
    """The same of a file of text. Raises UnreadableError for UTF-16 and UTF-32 too."""
    with unpacked(path) as file:
        if is_wide(file.peek(TAR_HEAD)):
            raise UnreadableError(WIDE)
        yield file


@contextmanager
def _opened(path: Path, packing: str | None) -> Iterator[io.BufferedReader]:
    if packing is None:
        with path.open("rb", buffering=READ_SIZE) as file:
            yield cast("io.BufferedReader", file)
    elif packing == "zip":
        with zipfile.ZipFile(path) as archive:
            found = only_member(archive)
            if isinstance(found, str):
                raise UnreadableError(found)
            with archive.open(found) as member:
                yield io.BufferedReader(cast("io.RawIOBase", member), READ_SIZE)
    elif packing == "zstd":
        with pa.CompressedInputStream(pa.OSFile(str(path), "rb"), "zstd") as stream:
            yield io.BufferedReader(cast("io.RawIOBase", stream), READ_SIZE)
    else:
        openers: dict[str, Callable[..., Any]] = {"gzip": gzip.open, "bz2": bz2.open, "xz": lzma.open}
        with openers[packing](path, "rb") as plain:
            yield io.BufferedReader(cast("io.RawIOBase", plain), READ_SIZE)


def unpacked_copy(path: Path, scratch: Path) -> Path:
    """A file that can be read anywhere, not only from the start: itself, or an unpacked copy below `scratch`."""
    if packing_of(path) is None:
        return path
    scratch.mkdir(parents=True, exist_ok=True)
    target = scratch / str(len(list(scratch.iterdir())))
    with unpacked(path) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, READ_SIZE)
    return target
