"""A model is made again from the lineage inside its folder, and compared with it stage by stage. Knows no Dagster."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tunemill.pipelines.graph.keys import libraries_of
from tunemill.pipelines.graph.lineage import contents_of, read_lineage
from tunemill.pipelines.graph.machine_facts import differing, made_with
from tunemill.pipelines.graph.rebuilt import (
    MissingError,
    Rebuilt,
    described,
    is_the_same,
    pipeline_of,
    rebuilt,
    source_now,
    sources_of,
)
from tunemill.pipelines.run.adopt import adopt
from tunemill.pipelines.run.materialize import Result, Session, materialize
from tunemill.pipelines.run.observer import Observer, unobserved
from tunemill.resources.canonical import SHORT, hash_listing
from tunemill.resources.environment import recorded_environment
from tunemill.resources.errors import LaunchError, StoreError
from tunemill.resources.identity import files_below, hash_file
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.store import Published, Store, is_unhashed, names_an_artifact
from tunemill.stages.errors import UserError

RUN = "reproduce"


@dataclass(frozen=True)
class Stage:
    """One stage of the making: the digest that it had, and the one that it has now, None where it was not made."""

    node: str
    stage: str
    before: str
    now: str | None
    seconds: float = 0.0

    @property
    def state(self) -> Literal["the same", "differs", "not made"]:
        return "not made" if self.now is None else "the same" if self.now == self.before else "differs"


@dataclass(frozen=True)
class Reproduction:
    """What came of it. `differences` are those at the stage where the first one arose, `where`; None if none did.

    `versions` says what this machine has in another version than the one that made the model.
    """

    stages: tuple[Stage, ...]
    versions: tuple[str, ...] = ()
    where: str | None = None
    differences: tuple[str, ...] = field(default=())

    @property
    def identical(self) -> bool:
        return self.where is None


def reproduce(
    folder: Path,
    store: Store,
    files: Sequence[Path] = (),
    observe: Observer = unobserved,
    launch: Launcher = in_child,
) -> Reproduction:
    """Make what is in `folder` again in an empty store. Raises MissingError where something for it is not there.

    What can be known before anything is computed is looked at first: the folder itself, and every source.
    """
    lineage = _lineage(folder)
    found = rebuilt(lineage, files)
    versions = tuple(_versions(found))
    stages = [Stage(item.full_name, item.item["stage"], item.item["digest"], None) for item in found]
    if changed := list(_changed_in(folder, lineage)):
        return Reproduction(tuple(stages), versions, str(folder), tuple(changed))
    for item in found:
        if differences := list(_changed_sources(item, store)):
            return Reproduction(tuple(stages), versions, item.full_name, tuple(differences))
    session = Session(pipeline_of(found, folder.absolute()), store, launch, observe)
    for index, item in enumerate(found):
        result = _make(item, session)
        digest = result.published.digest
        stages[index] = Stage(item.full_name, item.item["stage"], item.item["digest"], digest, result.seconds)
        if digest != item.item["digest"]:
            differences = list(_differences(item, result.published, folder, lineage))
            return Reproduction(tuple(stages), versions, item.full_name, tuple(differences))
    return Reproduction(tuple(stages), versions)


def _lineage(folder: Path) -> dict[str, Any]:
    try:
        return read_lineage(folder)
    except (FileNotFoundError, StoreError) as error:
        raise MissingError(str(error)) from error


def _versions(found: Sequence[Rebuilt]) -> Iterator[str]:
    """Versions of stages and packages, and facts of the machine, that are others now; each once."""
    said = set[str]()
    for item in found:
        if item.node is None:
            continue
        libraries = libraries_of(item.node)
        now = made_with(libraries, recorded_environment(os.environ))
        then = item.item.get("made_with")
        if not isinstance(then, dict):
            # Of an older version the minor versions are known.
            then = {"packages": item.item["libraries"]}
            minor = {name: ".".join(text.split(".")[:2]) for name, text in now["packages"].items()}
            now = {**now, "packages": minor, "environment": {}}
        lines = list(differing(then, now))
        tools, before = item.node.config.used_tools(), item.item["libraries"]
        lines += [
            f"{tool} {before.get(tool, 'not recorded')} -> {tools[tool]}"
            for tool in tools
            if before.get(tool) != tools[tool]
        ]
        if item.item.get("version") != item.node.stage.version:
            lines.append(
                f"stage {item.node.stage.name} {item.item.get('version')} -> {item.node.stage.version}"
            )
        yield from (line for line in lines if line not in said)
        said |= set(lines)


def _changed_in(folder: Path, lineage: Mapping[str, Any]) -> Iterator[str]:
    """What in the folder is not what its lineage says. Where files were added, `files` names those that count."""
    there = _hashes(folder)
    listed = lineage.get("files")
    if isinstance(listed, dict):
        yield from (
            f"{name} is {'not there' if name not in there else 'another file'} than its lineage says"
            for name in sorted(listed)
            if there.get(name) != listed[name]
        )
    elif hash_listing(there) != lineage["digest"]:
        yield (
            f"its files are not those that its lineage names: digest {hash_listing(there)[:SHORT]}, and it says "
            + (lineage["digest"][:SHORT])
        )


def _hashes(folder: Path) -> dict[str, str]:
    data = folder / "data" if (folder / "manifest.json").is_file() else folder
    names = {path.relative_to(data).as_posix(): path for path in files_below(data)}
    return {name: hash_file(path) for name, path in names.items() if not is_unhashed(name)}


def _changed_sources(item: Rebuilt, store: Store) -> Iterator[str]:
    """Sources that hold something else now. Raises MissingError for those that are not there."""
    for name, sources in sources_of(item).items():
        for source in sources:
            try:
                now = source_now(item, name, source["path"], store.stat_cache)
            except StoreError as error:
                raise MissingError(
                    f"{item.full_name} was made from {described(source)} ({contents_of(source)}): {error}. "
                    f"--files FOLDER says where local files are now"
                ) from error
            if not is_the_same(source, now):
                yield (
                    f"{described(source)} holds something else now: {contents_of(source)} then, "
                    f"{contents_of(now)} now"
                )


def _make(item: Rebuilt, session: Session) -> Result:
    """Make one artifact again. Raises MissingError where its stage fails."""
    try:
        if item.node is None:
            (source,) = item.item["sources"]["folder"]
            result = Result(adopt(Path(source["path"]), item.name, session.store), (), 0.0)
        else:
            node = item.node
            result = materialize(session, node, RUN, lambda event: session.observe(node.name, event))
    except (LaunchError, UserError, StoreError) as error:
        raise MissingError(f"{item.full_name} could not be made again: {error}") from error
    session.results[RUN, item.name] = result
    return result


def _differences(item: Rebuilt, made: Published, folder: Path, lineage: Mapping[str, Any]) -> Iterator[str]:
    """What differs between an artifact and what it was: the files, where those of then are still there."""
    now = {
        name.removeprefix("data/"): entry["sha256"]
        for name, entry in made.manifest["files"].items()
        if name.startswith("data/") and not is_unhashed(name)
    }
    yield f"digest {item.item['digest'][:SHORT]} then, {made.digest[:SHORT]} now"
    before = _files_then(item, folder, lineage)
    for name in sorted({*(before or {}), *now} if before else ()):
        if before is not None and before.get(name) != now.get(name):
            yield f"{name} {'is new' if name not in before else 'is gone' if name not in now else 'differs'}"


def _files_then(item: Rebuilt, folder: Path, lineage: Mapping[str, Any]) -> dict[str, str] | None:
    """The hashes of the files that an artifact had: in the folder that is reproduced, or in the store around it."""
    if item.item["key"] == lineage["key"]:
        return dict(lineage.get("files") or _hashes(folder))
    data = folder.resolve() if folder.resolve().name == "data" else folder.resolve() / "data"
    if not names_an_artifact(data):
        return None
    there = Store(data.parents[3]).lookup(item.item["stage"], item.item["key"])
    if not isinstance(there, Published):
        return None
    return {
        name.removeprefix("data/"): entry["sha256"]
        for name, entry in there.manifest["files"].items()
        if name.startswith("data/") and not is_unhashed(name)
    }
