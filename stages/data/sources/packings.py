"""What a file is by its first bytes, so that its name does not matter: packed, or what cannot be read as rows.

No heavy imports.
"""

from pathlib import Path

from tunemill.stages.data.sources import zips
from tunemill.stages.text_files import OTHER_MARKS

# A frame of zstd that is passed over, with which pzstd begins a file: sixteen marks.
ZSTD_SKIPPED = tuple(bytes((0x50 + number, 0x2A, 0x4D, 0x18)) for number in range(16))
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **dict.fromkeys(ZSTD_SKIPPED, "zstd"),
    **dict.fromkeys(zips.MAGIC, "zip"),
}
# After `BZh` and a digit comes the first block, or the end of an empty file.
BZ2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
HEAD = 10
# Where the first file of a tar archive has its mark, and that: as POSIX has it, and GNU.
TAR_AT, TAR_MARKS = 257, (b"ustar\0", b"ustar  \0")
TAR_HEAD = TAR_AT + 8
TAR = "a tar archive; unpack it and name its folder"
WIDE = "text in UTF-16 or UTF-32, and rows are read as UTF-8; convert it, as with `iconv -f UTF-16 -t UTF-8`"


def packing_of(path: Path) -> str | None:
    """gzip, bz2, xz, zstd or zip; None for a file that is not packed."""
    with path.open("rb") as file:
        return packing_of_start(file.read(HEAD))


def packing_of_start(head: bytes) -> str | None:
    """The same for a file that begins with these bytes: HEAD of them or more, or all that it has."""
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bz2" or head[4:10] in BZ2_BLOCKS):
            return name
    return None


def is_tar(start: bytes) -> bool:
    """Whether a file that begins with these bytes, TAR_HEAD of them, is a tar archive."""
    return start[TAR_AT:].startswith(TAR_MARKS)


def is_wide(start: bytes) -> bool:
    """Whether a file of text that begins with these bytes is in UTF-16 or UTF-32."""
    # In UTF-16 every other byte of plain text is zero.
    return start.startswith(tuple(OTHER_MARKS)) or (b"\0" in start[:2] and start[:2] != b"\0\0")
