"""What a team's store says of an artifact: one object, written last, that names everything else.

It holds the artifact's manifest, its key document and its lineage, so that a plan needs nothing more; where its files
are; and which taking of the lease they come from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tunemill.resources.canonical import hash_document, hash_listing
from tunemill.resources.published import MANIFEST_PARTS

PARTS = frozenset({"manifest", "key", "lineage", "upload", "fence"})
UPLOAD_LETTERS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class TeamEntry:
    """`upload` is the folder of its files among those of its key, `fence` the number of the lease (0: of none)."""

    manifest: Mapping[str, Any]
    key: Mapping[str, Any]
    lineage: Any
    upload: str
    fence: int

    def as_bytes(self) -> bytes:
        document = {name: getattr(self, name) for name in sorted(PARTS)}
        return json.dumps({**document, "sha256": hash_document(document)}).encode()


def entry_from(content: bytes, stage: str, key: str) -> TeamEntry | None:
    """What `as_bytes` wrote of this artifact; None for anything else."""
    try:
        document = json.loads(content)
        sealed = document.pop("sha256")
        if hash_document(document) != sealed or set(document) != PARTS:
            return None
        entry = TeamEntry(**document)
        is_this = (entry.manifest["stage"], entry.manifest["key"]) == (stage, key)
        is_whole = set(entry.manifest) >= MANIFEST_PARTS and hash_document(entry.key) == key
        files = entry.manifest["files"]
        is_below = all(_is_below(name) for name in files) and set(entry.upload) <= UPLOAD_LETTERS
        return entry if is_this and is_whole and is_below and bool(entry.upload) else None
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return None


def digest_of(hashes: Mapping[str, str], unhashed: frozenset[str]) -> str:
    """The digest of an artifact whose files (`data/...`, `logs/...`) have these hashes."""
    return hash_listing(
        {
            name.removeprefix("data/"): value
            for name, value in hashes.items()
            if name.startswith("data/") and PurePosixPath(name).name not in unhashed
        }
    )


def _is_below(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return parts[:1] in (("data",), ("logs",)) and ".." not in parts and str(PurePosixPath(name)) == name
