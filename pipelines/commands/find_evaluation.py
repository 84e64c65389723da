"""Which evaluation a user means: by its node, the node of the model, an artifact of the store, a YAML or a folder."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tunemill.pipelines.commands.find_artifact import is_digest, is_path, named_node, not_found, some_of
from tunemill.pipelines.config.pipeline_files import ENDINGS
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.lineage import read_lineage
from tunemill.pipelines.report.one_evaluation import Evaluated
from tunemill.pipelines.run.team import artifact_behind
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.store import Published, Store
from tunemill.stages.evaluation.gate import evaluation_node
from tunemill.stages.evaluation.scored import is_scored


def find_evaluations(words: Sequence[str], store: Store) -> list[Evaluated]:
    """Those that the words of a command line name: behind a YAML its nodes stand by themselves.

    Raises StoreError that says what there is instead, and ConfigError of a YAML that cannot be read.
    """
    found, pipeline = [], ""
    for word in words:
        if Path(word).suffix in ENDINGS and Path(word).is_file():
            # Only this form of the command pays for the import.
            from tunemill.pipelines.graph.load import pipeline_name

            pipeline = pipeline_name(Path(word))
        else:
            found.append(_find(word, pipeline, store))
    return found


def _find(what: str, pipeline: str, store: Store) -> Evaluated:
    if is_path(what) and not pipeline:
        return _in_folder(Path(what))
    name, _, prefix = what.removeprefix(ASSET_SCHEME).partition("@")
    if pipeline and "/" not in name:
        name = f"{pipeline}/{name}"
    places = {f"{own}/{node}": ref for own, node, ref in store.refs.all()}
    place = _evaluation(name, list(places))
    if place is None and not prefix and is_digest(name):
        return _by_prefix(name, None, store)
    if place is None:
        raise StoreError(not_found(name, list(places), store))
    if prefix:
        return _by_prefix(prefix, place, store)
    return _of(place, artifact_behind(store, place, places[place]))


def _evaluation(name: str, places: Sequence[str]) -> str | None:
    """The node of that name, or that evaluates the model of that name."""
    pipeline, slash, node = name.rpartition("/")
    evaluating = f"{pipeline}{slash}{evaluation_node(node, None)}"
    return named_node(evaluating, places) or named_node(name, places)


def _in_folder(path: Path) -> Evaluated:
    """In a folder, in a link to one, or around a file."""
    inside = path if path.is_dir() else path.parent
    for folder in (inside, inside / "data"):
        if is_scored(folder):
            has_lineage = (folder / LINEAGE_FILE).is_file()
            return Evaluated(str(path), folder, read_lineage(folder) if has_lineage else None)
    raise StoreError(
        f"{path}: it holds no evaluation (metrics.json and predictions.jsonl); name the folder of one, or its node"
    )


def _by_prefix(prefix: str, place: str | None, store: Store) -> Evaluated:
    """An artifact of the store by the first letters of its key or digest, of that node if one is named."""
    there = [one for one in _published(store) if place is None or _node(one) == place.partition("/")[2]]
    found = [one for one in there if one.key.startswith(prefix) or one.digest.startswith(prefix)]
    digests = {one.digest for one in found}
    if len(digests) > 1:
        raise StoreError(f"{prefix} begins {len(digests)} digests or keys; say more of it: {_listed(found)}")
    if not found:
        of = f"{place}@{prefix}: no artifact of it" if place else f"{prefix}: no evaluation in {store.root}"
        more = f"; there are {_listed(there)}" if there else ""
        raise StoreError(f"{of} has such a key or digest{more}")
    newest = max(found, key=lambda one: str(one.manifest.get("started", "")))
    return _of(f"{place or newest.manifest['pipeline'] + '/' + _node(newest)}@{prefix}", newest)


def _published(store: Store) -> Iterable[Published]:
    """The evaluations of the store, the newest first."""
    found = [store.lookup(folder.parent.name, folder.name) for folder in store.artifacts()]
    scored = [one for one in found if isinstance(one, Published) and is_scored(one.data)]
    return sorted(scored, key=lambda one: str(one.manifest.get("started", "")), reverse=True)


def _node(published: Published) -> str:
    return str(published.manifest["node"])


def _listed(found: Sequence[Published]) -> str:
    """`f9604b2f26c8 of 2026-11-28T06:01:37+00:00`."""
    return some_of([f"{one.digest[:SHORT]} of {one.manifest.get('started')}" for one in found])


def _of(name: str, published: Published) -> Evaluated:
    if not is_scored(published.data):
        raise StoreError(
            f"{name}: it is no evaluation; name a node that evaluates, such as evaluation_of_merged"
        )
    return Evaluated(name, published.data, read_lineage(published.data))
