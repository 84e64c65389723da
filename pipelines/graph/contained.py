"""Which models contain a dataset: by what the lineages in their folders say, whoever made them and whenever.

A source is known by its contents. Where a lineage names the same path with other contents, that is another revision of
the file, and said so.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunemill.pipelines.config.slices import whole_name
from tunemill.pipelines.graph.lineage import lineage_in
from tunemill.pipelines.graph.provenance import CONTENTS
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import read_json
from tunemill.resources.identity import StatCache, identify
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Store
from tunemill.stages import artifacts
from tunemill.stages.artifacts import Artifact, EvaluationReport, RawDataset

SHORTEST_PREFIX = 6
Revision = Literal["as it is now", "another revision", "by contents"]


@dataclass(frozen=True)
class Asked:
    """What is looked for: a name as lineages hold it, what lies there now, or the first letters of contents."""

    name: str
    contents: str | None = None
    prefix: str | None = None

    def matches(self, source: Mapping[str, Any]) -> Revision | None:
        """How a source of a lineage is the one that is asked for; None where it is another."""
        held = contents_in(source)
        if self.contents is not None and held == self.contents:
            return "as it is now"
        if self.prefix is not None and held is not None and held.startswith(self.prefix):
            return "by contents"
        path = str(source["path"])
        inside = (
            Path(path) in Path(self.name).parents and "://" not in path and source.get("kind") == "folder"
        )
        return "another revision" if path == self.name or inside else None


@dataclass(frozen=True)
class Contained:
    """A model with a dataset in it. `item` is the dataset's part of the lineage, `source` what was read."""

    folder: Path
    lineage: Mapping[str, Any]
    item: Mapping[str, Any]
    source: Mapping[str, Any]
    revision: Revision
    nodes: tuple[str, ...]

    @property
    def contents(self) -> str | None:
        return contents_in(self.source)

    def as_json(self) -> dict[str, Any]:
        return {
            "model": self.lineage["node"],
            "nodes_now": list(self.nodes),
            "stage": self.lineage["stage"],
            "key": self.lineage["key"],
            "digest": self.lineage["digest"],
            "made": self.lineage["started"],
            "folder": str(self.folder),
            "dataset": self.item["node"],
            "dataset_digest": self.item["digest"],
            "read": self.item["started"],
            "path": self.source["path"],
            "contents": self.contents,
            "revision": self.revision,
            "rows": self.item["metrics"].get("rows"),
        }


def asked_for(name: str, cache: StatCache) -> Asked:
    """What a user names: a file or folder here, a name as a YAML has it, or the first letters of contents."""
    path = Path(name).expanduser()
    if path.exists():
        found = str(path.resolve())
        return Asked(found, contents_in(identify(Path(found), cache)))
    is_prefix = len(name) >= SHORTEST_PREFIX and set(name) <= set("0123456789abcdef")
    return Asked(str(whole_name(name, Path.cwd(), True) or name), None, name if is_prefix else None)


def models_with(asked: Asked, store: Store) -> list[Contained]:
    """Every model of the store that the dataset is in, the oldest first. One with a damaged lineage is passed over."""
    nodes: dict[tuple[str, str], list[str]] = {}
    for pipeline, node, ref in store.refs.all():
        nodes.setdefault((ref.stage, ref.key), []).append(f"{pipeline}/{node}")
    found = []
    for folder in store.artifacts():
        if not _is_model(read_json(folder / "manifest.json")):
            continue
        try:
            lineage = lineage_in(folder / "data" / LINEAGE_FILE)
        except StoreError:
            continue
        now = tuple(nodes.get((folder.parent.name, folder.name), ()))
        for item, source, revision in _sources_of(lineage, asked):
            found.append(Contained(folder, lineage, item, source, revision, now))
    return sorted(found, key=lambda one: (one.lineage["started"], one.lineage["node"]))


def revisions(found: Sequence[Contained]) -> dict[str, dict[str, Any]]:
    """The contents that were found, the oldest first: when they were read first, and how many models have them."""
    told: dict[str, dict[str, Any]] = {}
    for one in sorted(found, key=lambda one: str(one.item["started"])):
        entry = told.setdefault(
            one.contents or "not known", {"read": one.item["started"], "revision": one.revision, "models": 0}
        )
        entry["models"] += 1
    return told


def contents_in(source: Mapping[str, Any]) -> str | None:
    """The whole of what an identity says of contents; None where nothing does."""
    return next((str(source[name]) for name in CONTENTS if source.get(name)), None)


def _sources_of(
    lineage: Mapping[str, Any], asked: Asked
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], Revision]]:
    for item in lineage["ancestors"].values():
        if item["artifact"] == RawDataset.__name__:
            for source in (source for sources in item["sources"].values() for source in sources):
                if (revision := asked.matches(source)) is not None:
                    yield item, source, revision


def _is_model(manifest: Any) -> bool:
    """Whether a manifest is of what a person takes away as a model."""
    names = manifest.get("artifact") if isinstance(manifest, dict) else None
    kind = getattr(artifacts, str(names[0]), None) if isinstance(names, list) and names else None
    if not (isinstance(kind, type) and issubclass(kind, Artifact)):
        return False
    return kind.exported and not issubclass(kind, EvaluationReport)
