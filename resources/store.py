"""The store: artifacts by stage and key, published once and whole, never changed afterwards.

<root>/artifacts/<stage>/<key>/{manifest.json,key.json,data/,logs/}         published
<root>/building/<stage>/<key>/<token>/{data/,logs/,checkpoints/,uses.json,node.json}  in progress; survives a crash
<root>/set_aside/<stage>/<key>.<time>/                                      damaged or replaced, kept for a look
<root>/refs/<pipeline>/<node>.json                                          see refs.py
<root>/pins/<pipeline>/<node>.json                                          see pins.py
<root>/pipelines/<pipeline>.json                                            see origins.py
<root>/kept/<stage>/                                                        what a stage keeps, see declaration.py
<root>/index.json                                                           see index.py
<root>/arriving/<stage>/<key>/                                              half of what a team has; see team_store.py
<root>/team.json                                                            which team's store the last run used
<root>/elsewhere/<id>/                                                      what is known of a team's store
"""

import fcntl
import json
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from tunemill.resources.building import Building, attempt, left_checkpoints
from tunemill.resources.canonical import SHORT, hash_document, hash_listing
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import (
    fsync,
    listed,
    make_durable,
    move,
    one_at_a_time,
    read_json,
    remove_tree,
    write_json,
)
from tunemill.resources.identity import StatCache, files_below, hash_file
from tunemill.resources.objects import fault_of_team_url
from tunemill.resources.pins import Pins
from tunemill.resources.protocols import LINEAGE_FILE, SIGNATURE_FILE
from tunemill.resources.published import MANIFEST_PARTS
from tunemill.resources.published import Absent as Absent
from tunemill.resources.published import Published as Published
from tunemill.resources.refs import Ref, Refs
from tunemill.resources.team_entry import digest_of
from tunemill.resources.team_lease import TeamLease
from tunemill.resources.team_store import Team, open_team
from tunemill.resources.team_transfer import DamagedError

# Files of these names travel inside the data folder but are not part of the result: provenance names times and hosts,
# and a signature is another one each time.
UNHASHED = frozenset({LINEAGE_FILE, SIGNATURE_FILE})
# What every key document holds; a damaged one explains nothing.
KEY_PARTS = frozenset({"schema", "stage", "version", "config", "sources", "inputs", "libraries"})


# Which team's store the last run was in front of.
TEAM_FILE = "team.json"


@dataclass(frozen=True)
class Ready:
    """What was built, hashed and written through to the disk: one rename from being an artifact."""

    folder: Path
    manifest: Mapping[str, Any]


class Store:
    """A folder of artifacts. Any number of processes may share it.

    With a `team` it stands before a store that many machines share: what the team has is found too, and brought here
    where it is needed.
    """

    def __init__(self, root: Path, team: Team | None = None) -> None:
        self.root = root.resolve()
        self.team = team
        self.refs = Refs(self.root / "refs")
        self.pins = Pins(self.root / "pins")
        self.stat_cache = StatCache(self.root / "stat_cache.sqlite")

    def before(self, url: str) -> "Store":
        """This store before the one that a team shares at a URL. Raises StoreError where it cannot be reached so."""
        return Store(self.root, open_team(url, self.root))

    def forgiving(self, say: Callable[[str], None]) -> "Store":
        """This store for looks: where the team's cannot be reached, `say` is told, and what is known here counts."""
        return self if self.team is None else Store(self.root, replace(self.team, forgive=say))

    def remember_team(self) -> None:
        """Note on this machine which store its last run was in front of, for commands without a YAML."""
        url = None if self.team is None else self.team.url
        if last_team(self.root) != url:
            write_json(self.root / TEAM_FILE, {"url": url})

    def folder(self, stage: str, key: str) -> Path:
        return self.root / "artifacts" / stage / key

    def lookup(self, stage: str, key: str) -> Published | Absent:
        """What is here, or else what the team has: of that no file is fetched. Raises UnreachableError."""
        here = self.lookup_here(stage, key)
        if isinstance(here, Published) or self.team is None:
            return here
        there = self.team.lookup(stage, key)
        if isinstance(there, Published):
            return there
        return replace(there, damage=here.damage) if there.refused else here

    def lookup_here(self, stage: str, key: str) -> Published | Absent:
        """A hit needs its bytes: every file of the manifest is there with its size."""
        folder = self.folder(stage, key)
        if not _is_there(folder / "manifest.json"):
            return Absent("never computed")
        manifest = _read_manifest(folder)
        if manifest is None:
            return Absent("its manifest is damaged", ("manifest.json",))
        damage = tuple(_wrong_sizes(folder, manifest["files"]))
        if damage:
            return Absent(f"a stored file is missing or cut short: {', '.join(damage)}", damage)
        return Published(folder, manifest)

    def ref(self, pipeline: str, node: str) -> Ref | None:
        """What a node points to: what it is pinned to, or else what it had last."""
        pin = self.pins.read(pipeline, node)
        return self.refs.read(pipeline, node) if pin is None else pin.ref

    def changed_files(self, published: Published) -> list[str]:
        """The files of an artifact whose contents are not what they were. One whose `stat` is known is not read."""
        wrong = []
        for name, entry in published.manifest["files"].items():
            try:
                is_same = self.stat_cache.hash(published.folder / name) == entry["sha256"]
            except OSError:
                is_same = False
            if not is_same:
                wrong.append(name)
        return wrong

    def key_document(self, stage: str, key: str) -> dict[str, Any] | None:
        """The document behind a key, if its artifact is (or was) here."""
        document = read_json(self.folder(stage, key) / "key.json")
        if document is None and self.team is not None:
            document = self.team.notes.key_document(stage, key)
        is_whole = isinstance(document, dict) and set(document) >= KEY_PARTS
        return document if is_whole and hash_document(document) == key else None

    @contextmanager
    def building(
        self, stage: str, key: str, say: Callable[[str], None], uses: Iterable[Published] = (), node: str = ""
    ) -> Iterator[Building]:
        """Hold the right to compute a key; see `building.attempt`. What it `uses` is not pruned meanwhile."""
        used = [(item.stage, item.key) for item in uses]
        with ExitStack() as held:
            building = held.enter_context(attempt(self.root / "building" / stage / key, say, used, node))
            if self.team is not None:
                lease = held.enter_context(self.team.holding(stage, key, say))
                building = replace(building, team_lease=lease)
            yield building

    def left_checkpoints(self, stage: str, key: str) -> Path | None:
        """The checkpoints that an interrupted attempt at a key has left to the next one."""
        return left_checkpoints(self.root / "building" / stage / key)

    def prepare(
        self,
        building: Building,
        key_document: Mapping[str, Any],
        facts: Mapping[str, Any],
        lineage: Callable[[str], Mapping[str, Any]],
    ) -> Ready:
        """Hash what was built and write it through to the disk.

        `facts` go into the manifest; `lineage`, given the digest, makes the file that travels with the data.
        """
        files = _inventory(building.folder)
        digest = hash_listing(
            {
                name.removeprefix("data/"): entry["sha256"]
                for name, entry in files.items()
                if name.startswith("data/")
            }
        )
        (building.data / LINEAGE_FILE).write_text(json.dumps(lineage(digest), indent=1))
        files |= _inventory(building.folder, only=UNHASHED)
        manifest = {"stage": building.stage, "key": building.key, "digest": digest, "files": files, **facts}
        ready = building.folder / "ready"
        ready.mkdir()
        (ready / "key.json").write_text(json.dumps(key_document, indent=1))
        for part in (building.data, building.logs):
            part.rename(ready / part.name)
        manifest = json.loads(json.dumps(manifest))
        sealed = {**manifest, "sha256": hash_document(manifest)}
        (ready / "manifest.json").write_text(json.dumps(sealed, indent=1))
        make_durable(ready)
        return Ready(ready, manifest)

    def publish(self, building: Building, ready: Ready) -> Published:
        """Turn it into an artifact by one rename. Raises StoreError where the lease is no longer this holder's."""
        final = self.folder(building.stage, building.key)
        with building.lease.guarded():
            final.parent.mkdir(parents=True, exist_ok=True)
            if _is_there(final):
                self.set_aside(building.stage, building.key)
            move(ready.folder, final)
        fsync(final.parent)
        # With the checkpoints: nobody goes on from here any more.
        remove_tree(building.folder)
        return Published(final, ready.manifest)

    def share(
        self,
        published: Published,
        say: Callable[[str], None],
        lease: TeamLease | None = None,
        replacing: bool = False,
    ) -> Published:
        """Publish an artifact for the team, if there is one that lacks it.

        With `lease` it was computed just now: what another machine has published first is taken in its place, or gives
        way when `replacing`. What cannot be sent stays here, and is sent by the next run.
        """
        team = self.team
        if team is None or published.elsewhere or (lease is None and team.has_sent(published)):
            return published
        document = self.key_document(published.stage, published.key)
        if document is None:
            say(f"not published for the team: {published.folder / 'key.json'} is damaged")
            return published
        try:
            theirs = team.publish(published, document, lease, replacing)
        except StoreError as error:
            say(
                f"not published for the team: {error}. The result is whole and kept here; the next run sends it"
            )
            return published
        if theirs is None:
            say(f"published for the team in {team.url}")
        elif replacing and theirs.digest == published.digest:
            say(f"the same is in {team.url} already")
        elif lease is not None:
            say(f"another machine has published this in {team.url} first, which is as good: it is taken")
            return published if theirs.digest == published.digest else self._taken(theirs, published, say)
        return published

    def _taken(self, theirs: Published, own: Published, say: Callable[[str], None]) -> Published:
        """What another machine has published in place of this one's; its own where that cannot be had."""
        try:
            return self._bring(theirs, say)
        except StoreError as error:
            say(f"it could not be brought: {error}. What this machine has computed is whole, and stays")
            return own

    def bring(self, published: Published, say: Callable[[str], None]) -> Published:
        """An artifact with its files here. Raises StoreError where the team's is damaged, or nobody answers."""
        if not published.elsewhere:
            return published
        here = self.lookup_here(published.stage, published.key)
        return here if isinstance(here, Published) else self._bring(published, say)

    def _bring(self, published: Published, say: Callable[[str], None]) -> Published:
        """Fetch an artifact of the team by way of a folder that nobody takes for one."""
        assert self.team is not None, "where else would it be?"
        stage, key = published.stage, published.key
        arriving = self.root / "arriving" / stage / key
        final = self.folder(stage, key)
        with one_at_a_time(arriving):
            here = self.lookup_here(stage, key)
            if isinstance(here, Published) and here.digest == published.digest:
                return here
            if (arriving / "manifest.json").exists():
                # Whole and read-only already: whoever had it ended before the last step.
                remove_tree(arriving)
                arriving.mkdir()
            started, files = time.monotonic(), published.manifest["files"]
            hashes = {name: entry["sha256"] for name, entry in files.items()}
            if digest_of(hashes, UNHASHED) != published.digest:
                wrong = f"the manifest of {stage} {key[:SHORT]} contradicts itself"
                self.team.notes.refuse(published, wrong)
                raise DamagedError(wrong)
            self.team.fetch(published, arriving)
            document = read_json(published.folder / "key.json")
            (arriving / "key.json").write_text(json.dumps(document, indent=1))
            manifest = dict(published.manifest)
            sealed = {**manifest, "sha256": hash_document(manifest)}
            (arriving / "manifest.json").write_text(json.dumps(sealed, indent=1))
            for part in ("data", "logs"):
                (arriving / part).mkdir(exist_ok=True)
            make_durable(arriving)
            final.parent.mkdir(parents=True, exist_ok=True)
            if _is_there(final):
                self.set_aside(stage, key)
            move(arriving, final)
            fsync(final.parent)
        size = sum(int(entry["bytes"]) for entry in files.values())
        say(f"brought {size / 1e6:.1f} MB from {self.team.url} in {time.monotonic() - started:.1f} s")
        return Published(final, manifest)

    @contextmanager
    def unpruned(self) -> Iterator[None]:
        """Nothing is pruned meanwhile: between the look at an artifact and the ref that names it."""
        with self._pruning_lock(fcntl.LOCK_SH):
            yield

    @contextmanager
    def pruning(self) -> Iterator[None]:
        """Nobody is about to name an artifact meanwhile."""
        with self._pruning_lock(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _pruning_lock(self, kind: int) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / "prune.lock").open("a") as guard:
            fcntl.flock(guard, kind)
            yield

    def set_aside(self, stage: str, key: str) -> Path:
        """Move an artifact out of the way, so that it is never hit again; return where it is now."""
        parent = self.root / "set_aside" / stage
        parent.mkdir(parents=True, exist_ok=True)
        aside = parent / f"{key}.{time.time_ns()}"
        move(self.folder(stage, key), aside)
        return aside

    def verify(self, artifact: Path) -> list[str]:
        """Hash every file of an artifact again; return what differs, one line per file."""
        manifest = _read_manifest(artifact)
        if manifest is None:
            return [f"{artifact / 'manifest.json'}: missing or damaged"]
        wrong = [
            f"{artifact / name}: missing or cut short" for name in _wrong_sizes(artifact, manifest["files"])
        ]
        if self.key_document(artifact.parent.name, artifact.name) is None:
            wrong.append(f"{artifact / 'key.json'}: missing or damaged")
        for name, entry in manifest["files"].items():
            path = artifact / name
            try:
                if _size(path) == entry["bytes"] and hash_file(path) != entry["sha256"]:
                    wrong.append(f"{path}: its contents changed")
            except OSError as error:
                if (line := f"{path}: missing or cut short") not in wrong:
                    wrong.append(f"{line} ({error.strerror})")
        return wrong

    def artifacts(self) -> list[Path]:
        """The folder of every artifact, sorted. Raises StoreError where the store cannot be listed."""
        stages = listed(self.root / "artifacts")
        return [path for stage in stages if stage.is_dir() for path in listed(stage) if path.is_dir()]


def is_unhashed(name: str) -> bool:
    """Whether a file of this name, in whichever folder of an artifact, is no part of its digest."""
    return PurePosixPath(name).name in UNHASHED


def names_an_artifact(target: Path) -> bool:
    """Whether a path is that of an artifact's data in a store, here or elsewhere."""
    *_, artifacts, _, key, data = ("", "", "", *target.parts)
    return (artifacts, data) == ("artifacts", "data") and re.fullmatch(r"[0-9a-f]{64}", key) is not None


def open_store(root: Path) -> Store:
    """Open the store at a folder; raises StoreError if it cannot be written."""
    path = root.expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"{path}: the state folder cannot be made ({error.strerror}); give another with --state"
        ) from error
    return Store(path)


def last_team(root: Path) -> str | None:
    """The team's store that `remember_team` noted."""
    note = read_json(root / TEAM_FILE)
    url = note.get("url") if isinstance(note, dict) else None
    return url if isinstance(url, str) and fault_of_team_url(url) is None else None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of an artifact; None where it is missing or is not what `prepare` wrote."""
    manifest = read_json(folder / "manifest.json")
    if not isinstance(manifest, dict):
        return None
    sealed = manifest.pop("sha256", None)
    try:
        return manifest if hash_document(manifest) == sealed and set(manifest) >= MANIFEST_PARTS else None
    except (TypeError, RecursionError):
        return None


def _inventory(building: Path, only: frozenset[str] = frozenset()) -> dict[str, dict[str, Any]]:
    found = {}
    for part in ("data", "logs"):
        for path in files_below(building / part):
            name = path.relative_to(building).as_posix()
            if is_unhashed(name) == bool(only):
                found[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    return found


def _size(path: Path) -> int | None:
    """A file's size in bytes; None for what is no regular file, and might never end. Raises OSError."""
    state = path.stat()
    return state.st_size if stat.S_ISREG(state.st_mode) else None


def _wrong_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, entry in files.items():
        try:
            if _size(folder / name) == entry["bytes"]:
                continue
        except OSError:
            pass
        yield name
