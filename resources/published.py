"""What a look at the store gives: a whole artifact, or why there is none."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What every manifest says of its artifact.
MANIFEST_PARTS = frozenset({"stage", "key", "digest", "files"})


@dataclass(frozen=True)
class Published:
    """A whole artifact of the store.

    One that is `elsewhere` is in the team's store alone, under the name of an `upload`: its folder holds what a look
    asks for (`manifest.json`, `key.json` and the lineage), and `Store.bring` gets the rest.
    """

    folder: Path
    manifest: Mapping[str, Any]
    upload: str = ""

    @property
    def elsewhere(self) -> bool:
        return bool(self.upload)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def stage(self) -> str:
        return str(self.manifest["stage"])

    @property
    def key(self) -> str:
        return str(self.manifest["key"])

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])


@dataclass(frozen=True)
class Absent:
    """No usable artifact, and why: `damage` names the files at fault if there was one.

    `refused`: the team's store has one that is damaged.
    """

    reason: str
    damage: tuple[str, ...] = ()
    refused: bool = False
