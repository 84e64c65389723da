"""Names of places on this machine, whatever a user wrote.

`Path` raises for a name that is too long or leads in a circle, where `os.path` says that nothing is there.
"""

# ruff: noqa: PTH110, PTH111, PTH112, PTH113, PTH114, PTH116, PTH120

import errno
import hashlib
import os
import re
import stat
import unicodedata
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from tunemill.resources.errors import StoreError

# A path has lost one of the slashes: `s3:/bucket`.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
# What Linux takes, in bytes.
LONGEST_PART, LONGEST_PATH = 255, 4095
# Of names that are made of a user's, in characters of ASCII: with an ending and a prefix they fit everywhere.
LONGEST_NAME = 100
LONGEST_SHOWN = 200
DIGEST_LETTERS = 12
SPECIAL = (
    (stat.S_ISFIFO, "a named pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)
# Their files are made up by the kernel while they are read: without a size, some without an end.
MADE_UP = frozenset({
    "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fusectl", "mqueue", "proc",
    "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs",
})  # fmt: skip


def local_path(name: str | Path, what: str, room: int = 0) -> Path:
    """The path behind a name, with `~` filled in.

    Raises StoreError for a URL and for what cannot be a path, or not one with `room` more bytes below it.
    """
    if URL.match(str(name)):
        raise StoreError(f"{what} must be on this machine, and {shown(name)} is a URL; give a local path")
    if reason := unusable(name, room):
        raise StoreError(f"{what}: {shown(name)}: {reason}")
    try:
        return Path(name).expanduser()
    except RuntimeError as error:
        raise StoreError(f"{what}: there is no home folder behind {name}; write the whole path") from error


def absolute(name: str, folder: Path) -> str:
    """The name seen from a folder. What cannot be a path stays a name, and nothing is found there."""
    place = folder / os.path.expanduser(name)
    try:
        return os.path.realpath(place)
    except ValueError:
        return str(place)


def short_name(text: str, longest: int) -> str:
    """The text, where it is too long (in characters) cut and with a digest, so that two long ones stay apart."""
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST_LETTERS]
    return f"{text[: longest - DIGEST_LETTERS - 1]}_{digest}"


def is_there(path: str | Path) -> bool:
    """Whether there is a file or folder; False for what cannot be a path."""
    return os.path.exists(path)


def is_named(name: str, folder: Path) -> bool:
    """Whether something has this name, seen from a folder: also a link that leads nowhere."""
    return os.path.lexists(folder / os.path.expanduser(name))


def is_file(path: str | Path) -> bool:
    """Whether there is a file; False for what cannot be a path."""
    return os.path.isfile(path)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; False for what cannot be a path."""
    return os.path.isdir(path)


def refusal(path: str | Path) -> str | None:
    """Why nothing can be read at a path, as a sentence about `it` with the way out; None for what may be read.

    Opens nothing: opening a pipe or some devices waits for ever. Says nothing of what is not there.
    """
    return unusable(path) or _special(path)


def refusal_inside(path: Path) -> str | None:
    """As `refusal`, of what lies in a user's folder: its name need not be seen, but must be text."""
    return _not_text(path.name) or _special(path)


def unusable(name: str | Path, room: int = 0) -> str | None:
    """Why a name can be that of no file, going by its text; `room` is for bytes that come below it."""
    text = str(name)
    if (reason := odd_characters(text)) is not None:
        return reason
    if max(len(os.fsencode(part)) for part in text.split("/")) > LONGEST_PART:
        return f"a part of it is longer than {LONGEST_PART} bytes, which no file system takes; give a shorter name"
    if len(os.fsencode(text)) + room > LONGEST_PATH:
        beside = f" with {room} bytes for what comes below it" if room else ""
        return f"it is longer than the {LONGEST_PATH} bytes that a path may have{beside}; give a shorter one"
    return None


def odd_characters(text: str) -> str | None:
    """What is wrong with the characters of a name, local or remote."""
    kinds = {unicodedata.category(character) for character in text if not character.isprintable()}
    if kinds & {"Cc", "Zl", "Zp"}:
        return "its name has a line break or another control character; rename it"
    return _not_text(text)


def odd_url(url: str) -> str | None:
    """What is wrong with a URL, going by its text; nothing of it is told, for it may hold a password."""
    try:
        urlsplit(url).port  # noqa: B018  raises
    except ValueError:
        return "it is no URL: what stands before its path cannot be read; percent-encode a / ? # or [ of a password"
    return odd_characters(url)


def _not_text(name: str) -> str | None:
    """Bytes that are no text come as lone surrogates."""
    has_surrogates = any("\ud800" <= character <= "\udfff" for character in name)
    return "its name is not UTF-8; rename it" if has_surrogates else None


def shown(name: str | Path) -> str:
    """A name as a message shows it: characters that cannot be seen are spelled out, and a long one is cut."""
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in str(name)
    )
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 40]}...{text[-37:]}"


def _special(path: str | Path) -> str | None:
    try:
        state = os.stat(path)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "it is a link that leads in a circle; put a file or folder there"
        if os.path.islink(path) and error.errno == errno.ENOENT:
            return "it is a link to nowhere; remove it, or put back what it named"
        return _made_up(os.path.dirname(path)) if error.errno == errno.ENOENT else None
    for is_special, name in SPECIAL:
        if is_special(state.st_mode):
            return f"it is no regular file but {name}; put what comes out of it into a file, and give that"
    return _made_up(path)


def _made_up(path: str | Path) -> str | None:
    """What the kernel makes up: also a name below its folders that leads nowhere, as that of a closed pipe."""
    try:
        kinds = file_system_of(os.stat(path).st_dev)
    except OSError:
        return None
    if not kinds & MADE_UP:
        return None
    return "it is made up by the kernel while it is read; copy it into a file, and give that"


@cache
def file_system_of(device: int) -> frozenset[str]:
    """What kind of file system a device holds, as far as this machine says."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return frozenset()
    number = f"{os.major(device)}:{os.minor(device)}"
    return frozenset(line.partition(" - ")[2].split()[0] for line in mounts if line.split()[2] == number)
