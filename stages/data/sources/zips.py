"""Which file of a zip holds the rows, and why none does. Reads the archive's list of files, and no file of it."""

import stat
import zipfile
from pathlib import Path

from tunemill.stages.data.sources.names import is_left_alone

ENCRYPTED = 1
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
# With files, empty, or in several parts.
MAGIC = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
LISTED = 3
# What zipfile raises for an archive that is cut off, damaged (the names in it too), or newer than it knows.
DAMAGES = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError)


def only_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo | str:
    """The one file in a zip, not counting what systems put beside it; or why it cannot be read as one."""
    files = [item for item in archive.infolist() if not item.is_dir()]
    members = [item for item in files if not is_left_alone(item.filename)]
    if len(members) != 1:
        names = ", ".join(item.filename for item in members[:LISTED]) + (
            ", ..." if len(members) > LISTED else ""
        )
        if not members:
            return "a zip of 0 files" if not files else "a zip of nothing but what systems put beside files"
        return f"a zip of {len(members)} files; unpack it and name its folder (it holds {names})"
    member = members[0]
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "a zip of a link or another special file; pack the file itself"
    if member.flag_bits & ENCRYPTED:
        return "a zip with a password; unpack it and name the file"
    if member.compress_type not in METHODS:
        return "a zip with a compression that cannot be read here; unpack it and name the file"
    return member


def fault_of_zip(path: Path) -> str | None:
    """Why a zip that is there cannot be read as one file, as far as its list of files tells."""
    try:
        with zipfile.ZipFile(path) as archive:
            found = only_member(archive)
    except DAMAGES as error:
        return f"a zip that is damaged or cut off: {error}"
    return found if isinstance(found, str) else None
