"""Refs: which artifact a pipeline's node points to now. One small JSON file per node."""

import json
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ref:
    """`stage` and `key` address the artifact; `digest` is what it was when the ref was set."""

    stage: str
    key: str
    digest: str


class Refs:
    """The refs below one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, pipeline: str, node: str) -> Ref | None:
        """The ref of a node, or None if it never had an artifact."""
        return _read(self._path(pipeline, node))

    def write(self, pipeline: str, node: str, ref: Ref) -> None:
        """Point a node to an artifact; readers see the old ref or the new one, never half of one."""
        path = self._path(pipeline, node)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with beside.open("w") as file:
            file.write(json.dumps(asdict(ref)))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)

    def all(self) -> list[tuple[str, str, Ref]]:
        """Every (pipeline, node, ref), sorted."""
        found = []
        for path in sorted(self._root.glob("*/**/*.json")):
            ref = _read(path)
            if ref is not None and not path.name.startswith("."):
                pipeline, *node = path.relative_to(self._root).with_suffix("").parts
                found.append((pipeline, "/".join(node), ref))
        return found

    def damaged(self) -> list[Path]:
        """Files that should be refs and cannot be read."""
        files = [path for path in sorted(self._root.glob("*/**/*.json")) if not path.name.startswith(".")]
        return [path for path in files if _read(path) is None]

    def _path(self, pipeline: str, node: str) -> Path:
        return self._root / pipeline / f"{node}.json"


def _read(path: Path) -> Ref | None:
    """A ref, or None where there is none or a damaged one: the next run sets it again."""
    try:
        return Ref(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
