"""Refs: which artifact a pipeline's node points to now. One small JSON file per node."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tunemill.resources.folders import listed, read_json, write_json


@dataclass(frozen=True)
class Ref:
    """`stage` and `key` address the artifact; `digest` is what it was when the ref was set."""

    stage: str
    key: str
    digest: str


class Refs:
    """The refs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, pipeline: str, node: str) -> Ref | None:
        """The ref of a node, or None if it never had an artifact."""
        return _read(self._path(pipeline, node))

    def write(self, pipeline: str, node: str, ref: Ref) -> None:
        """Point a node to an artifact; readers see the old ref or the new one, never half of one."""
        write_json(self._path(pipeline, node), asdict(ref))

    def all(self) -> list[tuple[str, str, Ref]]:
        """Every (pipeline, node, ref), sorted. Raises StoreError where the refs cannot be listed."""
        found = []
        for path in self._files():
            if (ref := _read(path)) is not None:
                pipeline, *node = path.relative_to(self.root).with_suffix("").parts
                found.append((pipeline, "/".join(node), ref))
        return found

    def damaged(self) -> list[Path]:
        """What lies among the refs and is none that can be read. Raises StoreError where they cannot be listed."""
        return [path for path in self._files() if _read(path) is None]

    def _files(self) -> Iterator[Path]:
        """Everything below the folder that is no folder itself; what lies beside pipelines' folders too."""
        pending = [self.root]
        while pending:
            for path in listed(pending.pop(0)):
                if path.is_dir() and not path.is_symlink():
                    pending.append(path)
                else:
                    yield path

    def _path(self, pipeline: str, node: str) -> Path:
        return self.root / pipeline / f"{node}.json"


def _read(path: Path) -> Ref | None:
    """A ref, or None where there is none or a damaged one: the next run sets it again."""
    document = read_json(path)
    if not isinstance(document, dict) or set(document) != {"stage", "key", "digest"}:
        return None
    return Ref(**document) if all(isinstance(part, str) and part for part in document.values()) else None
