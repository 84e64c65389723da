"""Compressed files. What a file is packed with is told by its first bytes, so its name does not matter."""

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
from typing import IO, Any, cast

import pyarrow as pa

from tunemill.stages.data.sources import zips
from tunemill.stages.data.sources.zips import only_member

READ_SIZE = 1 << 20
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **dict.fromkeys(zips.MAGIC, "zip"),
}
# After `BZh` and a digit comes the first block, or the end of an empty file.
BZ2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")


class UnreadableError(ValueError):
    """A file as a whole cannot be read; the message says why, without naming the file."""


# What the readers, the unpackers and Arrow raise when a file is cut off or damaged.
DAMAGES = (
    UnreadableError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    *zips.DAMAGES,
    pa.ArrowException,
)


def packing_of(path: Path) -> str | None:
    """gzip, bz2, xz, zstd or zip; None for a file that is not packed."""
    with path.open("rb") as file:
        head = file.read(10)
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bz2" or head[4:10] in BZ2_BLOCKS):
            return name
    return None


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The contents of a file, unpacked while they are read. Raises UnreadableError for a zip of several files."""
    packing = packing_of(path)
    if packing is None:
        with path.open("rb", buffering=READ_SIZE) as file:
            yield file
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
