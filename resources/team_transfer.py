"""The files of an artifact on their way to a team's store and back: in parallel, resumed where cut off, checked."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tunemill.resources.errors import StoreError
from tunemill.resources.folders import remove_tree
from tunemill.resources.identity import hash_file
from tunemill.resources.objects import Objects

AT_ONCE = 4
# Where files lie that are not whole yet: an artifact's own are in `data` and `logs`.
HALVES = "halves"

Files = Mapping[str, Mapping[str, Any]]
"""`bytes` and `sha256` of each file by name, as a manifest has them."""


class DamagedError(StoreError):
    """What a team's store holds is not what its manifest says."""


def send_files(objects: Objects, place: str, folder: Path, files: Files) -> None:
    """Copy files to a folder of the store; one that is there with its size is not sent again.

    Raises StoreError where a file is not what the manifest says, or did not arrive.
    """
    there = {item.name: item.bytes for item in objects.listing(f"{place}/")}

    def send(name: str) -> None:
        entry, path = files[name], folder / name
        if there.get(f"{place}/{name}") == entry["bytes"]:
            return
        if hash_file(path) != entry["sha256"]:
            raise StoreError(
                f"{path}: its contents changed, so it is not sent; `tunemill cache verify` looks"
            )
        objects.send(f"{place}/{name}", path)

    _each(send, files)
    there = {item.name: item.bytes for item in objects.listing(f"{place}/")}
    for name, entry in files.items():
        whole = f"{place}/{name}"
        # A listing may be behind.
        if there.get(whole) != entry["bytes"] and objects.size(whole) != entry["bytes"]:
            raise StoreError(f"{objects.url}: {name} did not arrive whole")


def fetch_files(objects: Objects, place: str, files: Files, folder: Path) -> None:
    """Copy files from a folder of the store, and go on where an earlier attempt was cut off.

    Raises DamagedError where one is missing or is not what the manifest says.
    """

    halves = folder / HALVES
    halves.mkdir(parents=True, exist_ok=True)

    def fetch(name: str) -> None:
        entry, path = files[name], folder / name
        half = halves / hashlib.sha256(name.encode()).hexdigest()
        if path.exists() and _is_right(path, entry):
            return
        remove_tree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        if half.exists() and half.stat().st_size > entry["bytes"]:
            half.unlink()
        begun = half.exists()
        try:
            objects.fetch(f"{place}/{name}", half, int(entry["bytes"]))
            if begun and not _is_right(half, entry):
                # Its beginning may be what is wrong.
                half.unlink()
                objects.fetch(f"{place}/{name}", half, int(entry["bytes"]))
        except FileNotFoundError as error:
            raise DamagedError(f"{name} is missing") from error
        if not _is_right(half, entry):
            half.unlink()
            raise DamagedError(f"the contents of {name} are not what was published")
        half.rename(path)

    _each(fetch, files)
    remove_tree(halves)
    for path in [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]:
        if path.relative_to(folder).as_posix() not in files:
            # Of an earlier attempt at another upload.
            path.unlink()


def _is_right(path: Path, entry: Mapping[str, Any]) -> bool:
    return path.stat().st_size == int(entry["bytes"]) and hash_file(path) == str(entry["sha256"])


def _each(do: Callable[[str], None], files: Files) -> None:
    """Do it with each file, the largest first, several at once. The first error ends it."""
    names = sorted(files, key=lambda name: -int(files[name]["bytes"]))
    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        for done in [pool.submit(do, name) for name in names]:
            done.result()
    finally:
        pool.shutdown(cancel_futures=True)
