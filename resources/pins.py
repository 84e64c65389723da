"""Pins: the artifact that a pipeline's node keeps, whatever its YAML asks for. `pins/<pipeline>/<node>.json`."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import listed, read_json, remove_tree, write_json
from tunemill.resources.refs import Ref

PARTS = {"stage", "key", "digest", "since", "reason"}
HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """`stage`, `key` and `digest` of the artifact, since when it is pinned (ISO 8601, UTC), and a reason or nothing."""

    stage: str
    key: str
    digest: str
    since: str
    reason: str

    @property
    def ref(self) -> Ref:
        return Ref(self.stage, self.key, self.digest)

    def __str__(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        return f"pinned to {self.digest[:SHORT]} since {self.since}{why}"

    def as_json(self) -> dict[str, str]:
        return asdict(self)


class Pins:
    """The pins below one folder. One that cannot be read is an error: without a word it would count no more."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, pipeline: str, node: str) -> Pin | None:
        """The pin of a node, or None if it has none. Raises StoreError for a damaged one."""
        path = self.path(pipeline, node)
        return _read(path, pipeline, node) if path in self._files(pipeline) else None

    def of(self, pipeline: str) -> dict[str, Pin]:
        """The pins of a pipeline by node. Raises StoreError for a damaged one."""
        return {path.stem: _read(path, pipeline, path.stem) for path in self._files(pipeline)}

    def all(self) -> dict[str, Pin]:
        """Every pin by `pipeline/node`, sorted. Raises StoreError for a damaged one."""
        return {
            f"{folder.name}/{node}": pin
            for folder in listed(self.root)
            for node, pin in self.of(folder.name).items()
        }

    def names(self) -> list[str]:
        """What has a pin, damaged ones too: `pipeline/node`, sorted."""
        return [
            f"{folder.name}/{path.stem}" for folder in listed(self.root) for path in self._files(folder.name)
        ]

    def of_file(self, pipeline: str, node: str) -> Pin | None:
        """What is known of a pin that is to be replaced or taken away; None for a damaged one too."""
        document = read_json(self.path(pipeline, node))
        return Pin(**document) if _is_pin(document) else None

    def write(self, pipeline: str, node: str, pin: Pin) -> None:
        """Pin a node; readers see the old pin or the new one, never half of one."""
        write_json(self.path(pipeline, node), asdict(pin))

    def remove(self, pipeline: str, node: str) -> None:
        """Take a pin away, a damaged one too."""
        remove_tree(self.path(pipeline, node))

    def _files(self, pipeline: str) -> list[Path]:
        folder = self.root / pipeline
        # What is above is listed too: a link to nowhere is no answer.
        return (
            [path for path in listed(folder) if path.suffix == ".json"] if folder in listed(self.root) else []
        )

    def path(self, pipeline: str, node: str) -> Path:
        """Where the pin of a node is, if it has one."""
        return self.root / pipeline / f"{node}.json"


def _read(path: Path, pipeline: str, node: str) -> Pin:
    document = read_json(path)
    if not _is_pin(document):
        raise StoreError(
            f"{path} is damaged, so it is not known to what {pipeline}/{node} is pinned; "
            f"`tunemill unpin {pipeline}/{node}` takes it away, `tunemill pin {pipeline}/{node}` writes it anew"
        )
    return Pin(**document)


def _is_pin(document: Any) -> bool:
    """Whether it is what `write` wrote, as far as anybody can tell."""
    if not isinstance(document, dict) or set(document) != PARTS:
        return False
    if not all(isinstance(part, str) and part.isprintable() for part in document.values()):
        return False
    hashes = (document["key"], document["digest"])
    return re.fullmatch(r"\w+", document["stage"], re.ASCII) is not None and all(
        HASH.fullmatch(part) for part in hashes
    )
