"""What a file is packed with, by its first bytes, so that its name does not matter. No heavy imports."""

from pathlib import Path

from tunemill.stages.data.sources import zips

MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    **dict.fromkeys(zips.MAGIC, "zip"),
}
# After `BZh` and a digit comes the first block, or the end of an empty file.
BZ2_BLOCKS = (b"\x31\x41\x59\x26\x53\x59", b"\x17\x72\x45\x38\x50\x90")
HEAD = 10


def packing_of(path: Path) -> str | None:
    """gzip, bz2, xz, zstd or zip; None for a file that is not packed."""
    with path.open("rb") as file:
        return packing_of_start(file.read(HEAD))


def packing_of_start(head: bytes) -> str | None:
    """The same for a file that begins with these bytes: HEAD of them, or all that it has."""
    for magic, name in MAGIC.items():
        if head.startswith(magic) and (name != "bz2" or head[4:10] in BZ2_BLOCKS):
            return name
    return None
