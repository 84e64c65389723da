"""A store that a team shares: artifacts at a URL, behind the local store of each machine.

<url>/manifests/<stage>/<key>.json                 see team_entry.py: written last, where there is none
<url>/files/<stage>/<key>/<upload>/{data/,logs/}   what one machine has sent; only a manifest makes it count
<url>/leases/<stage>/<key>.json                    see team_lease.py

What this machine knows of it is in team_notes.py. Two machines never write into one
folder of files, so neither a torn upload nor a second one of the same key harms what is there. Refs and pins are each
machine's own.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunemill.resources.canonical import hash_document
from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.folder_objects import FolderObjects
from tunemill.resources.folders import read_json
from tunemill.resources.objects import Objects, fault_of_team_url, objects_at
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.published import Absent, Published
from tunemill.resources.team_entry import TeamEntry
from tunemill.resources.team_lease import Rhythm, TeamLease, team_lease
from tunemill.resources.team_notes import Notes
from tunemill.resources.team_transfer import DamagedError, fetch_files, send_files

# So many manifests of a stage are asked for one by one before all are listed.
LIST_FROM = 8
# A listing counts for so long.
LISTED_SECONDS = 20.0
AT_ONCE = 32
# After that an upload begins anew: `cache prune` may be deleting what an old one has sent.
RESUMED_SECONDS = 43_200.0
# Nobody having answered, so long nobody is asked again.
GONE_SECONDS = 60.0
# A manifest is written so often where what is in its place changes meanwhile and is nothing good.
WRITES = 5
# In the note of an upload: the mark of what it is to replace, whatever that is.
INSTEAD, ANY = "instead", "any"

Place = tuple[str, str]
"""(stage, key) of an artifact."""


@dataclass
class _Looks:
    """What this process has seen of a stage: how many it asked for, and the marks of the last listing."""

    asked: int = 0
    listed_at: float = float("-inf")
    marks: dict[str, str] = field(default_factory=dict)


@dataclass
class _Standing:
    """What this process knows of the place: why nobody answered, and when; and the keys whose leases it holds."""

    gone: UnreachableError | None = None
    at: float = 0.0
    held: set[Place] = field(default_factory=set)


@dataclass(frozen=True)
class Team:
    """A team's store as this machine sees it. `notes` are what it knows of it.

    `forgive`, where it is given, is told that nobody answers, and looks go on with what is known.
    """

    url: str
    notes: Notes
    objects: Objects
    rhythm: Rhythm
    forgive: Callable[[str], None] | None = None
    _looks: dict[str, _Looks] = field(default_factory=dict, compare=False, repr=False)
    _standing: _Standing = field(default_factory=_Standing, compare=False, repr=False)

    def lookup(self, stage: str, key: str) -> Published | Absent:
        """What the team has, from its manifest alone. Raises UnreachableError where nobody answers."""
        try:
            with self._asking():
                return self._look(stage, key)
        except UnreachableError as error:
            if self.forgive is None:
                raise
            self.forgive(str(error))
            return self.notes.known(stage, key) or Absent("never computed")

    def look_ahead(self, places: Iterable[Place]) -> None:
        """Fetch the manifests of many artifacts at once, so that looking them up costs nothing."""
        by_stage: dict[str, list[str]] = {}
        for stage, key in places:
            by_stage.setdefault(stage, []).append(key)
        wanted: list[Place] = []
        try:
            with self._asking():
                for stage, keys in by_stage.items():
                    if len(keys) >= LIST_FROM:
                        marks = self._list(stage).marks
                        wanted += [
                            (stage, key)
                            for key in keys
                            if key in marks and self.notes.mark(stage, key) != marks[key]
                        ]
        except UnreachableError as error:
            if self.forgive is None:
                raise
            self.forgive(str(error))
            return
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda place: self.lookup(*place), wanted))

    @contextmanager
    def holding(self, stage: str, key: str, say: Callable[[str], None]) -> Iterator[TeamLease]:
        """Hold the team's right to compute a key; what other machines have published meanwhile is seen from then on."""
        with ExitStack() as held:
            with self._asking():
                lease = held.enter_context(team_lease(self.objects, lease_name(stage, key), say, self.rhythm))
            self._looks.pop(stage, None)
            self._standing.held.add((stage, key))
            held.callback(self._standing.held.discard, (stage, key))
            yield lease

    def has_sent(self, published: Published) -> bool:
        """Whether this machine has nothing to do any more so that the team has an artifact of this key."""
        note = self.notes.sent(published.stage, published.key)
        return note.get("done") is True and note.get("digest") == published.digest

    def publish(
        self,
        published: Published,
        key_document: Mapping[str, Any],
        lease: TeamLease | None,
        replacing: bool = False,
    ) -> Published | None:
        """Send an artifact: its files first, its manifest last and only where there is none.

        Returns what another machine has published before, which is as good; None where this one is there now. When
        `replacing`, it takes the place of what is there: now, or in a later attempt where this one fails. Raises
        StoreError where it cannot be sent, or where another machine has taken `lease` over.
        """
        stage, key = published.stage, published.key
        if replacing:
            self.notes.note_sending(published, {INSTEAD: ANY})
        # What was computed just now is worth every attempt to send it.
        with self._asking(patient=lease is not None):
            theirs, mark = self._theirs(stage, key)
            if theirs is not None and self.notes.sent(stage, key).get(INSTEAD) in (mark, ANY):
                self.notes.note_sending(published, {INSTEAD: mark})
                theirs = theirs if theirs.digest == published.digest else None
            if theirs is None:
                theirs = self._send(published, key_document, lease, mark)
        self.notes.note_sent(published)
        return theirs

    def fetch(self, published: Published, folder: Path) -> None:
        """Copy the files of an artifact that is elsewhere into a folder. Raises DamagedError; what is damaged is not
        taken for an artifact again."""
        place = files_place(published.stage, published.key, published.upload)
        try:
            with self._asking():
                fetch_files(self.objects, place, published.manifest["files"], folder)
        except DamagedError as error:
            self.notes.refuse(published, str(error))
            raise
        self.notes.note_sent(published)

    def _send(
        self,
        published: Published,
        key_document: Mapping[str, Any],
        lease: TeamLease | None,
        mark: str | None,
    ) -> Published | None:
        """Send files and manifest, the latter in place of what has this mark. Returns whose came first meanwhile."""
        stage, key = published.stage, published.key
        upload = self._upload(published)
        send_files(
            self.objects, files_place(stage, key, upload), published.folder, published.manifest["files"]
        )
        lineage = read_json(published.data / LINEAGE_FILE)
        entry = TeamEntry(
            published.manifest, key_document, lineage, upload, 0 if lease is None else lease.state.number
        )
        content, name = entry.as_bytes(), manifest_name(stage, key)
        for _ in range(WRITES):
            if lease is not None:
                lease.check()
            made = (
                self.objects.create(name, content)
                if mark is None
                else self.objects.replace(name, content, mark)
            )
            if made is not None:
                return None
            # Whoever verifies or prunes may have set aside or deleted what was there.
            theirs, mark = self._theirs(stage, key)
            if theirs is not None:
                return theirs
        raise StoreError(f"{self.url}: what it has of this was changed meanwhile, {WRITES} times")

    def _upload(self, published: Published) -> str:
        """The name of an upload. One of this very artifact that was cut off not long ago goes on under its name."""
        result = hash_document(dict(published.manifest))
        known = self.notes.sent(published.stage, published.key)
        if known.get("result") == result and 0 <= time.time() - known["began"] < RESUMED_SECONDS:
            return str(known["upload"])
        upload = uuid.uuid4().hex
        kept = {INSTEAD: known[INSTEAD]} if INSTEAD in known else {}
        self.notes.note_sending(published, {**kept, "upload": upload, "result": result, "began": time.time()})
        return upload

    def _look(self, stage: str, key: str) -> Published | Absent:
        mark = self._listed_mark(stage, key)
        if mark is None:
            return Absent("never computed")
        if mark and self.notes.mark(stage, key) == mark:
            known = self.notes.known(stage, key)
            if known is not None:
                return known
        stored = self.objects.get(manifest_name(stage, key))
        return Absent("never computed") if stored is None else self.notes.keep(stage, key, stored)

    def _theirs(self, stage: str, key: str) -> tuple[Published | None, str | None]:
        """A good artifact of the key that is there now, if there is one; and the mark of what is there, if anything."""
        stored = self.objects.get(manifest_name(stage, key))
        if stored is None:
            return None, None
        found = self.notes.keep(stage, key, stored)
        return (found if isinstance(found, Published) else None), stored.mark

    def _listed_mark(self, stage: str, key: str) -> str | None:
        """The mark of a manifest in a listing of now; empty where it has to be asked for, None where there is none.

        A listing may be behind. Whoever is about to compute asks for the manifest itself.
        """
        if (stage, key) in self._standing.held:
            return ""
        looks = self._looks.setdefault(stage, _Looks())
        looks.asked += 1
        if looks.asked < LIST_FROM and time.monotonic() - looks.listed_at > LISTED_SECONDS:
            return ""
        return self._list(stage).marks.get(key)

    def _list(self, stage: str) -> _Looks:
        looks = self._looks.setdefault(stage, _Looks())
        if time.monotonic() - looks.listed_at > LISTED_SECONDS:
            found = self.objects.listing(f"manifests/{stage}/")
            looks.marks = {item.name.rpartition("/")[2].removesuffix(".json"): item.mark for item in found}
            looks.listed_at = time.monotonic()
        return looks

    @contextmanager
    def _asking(self, patient: bool = False) -> Iterator[None]:
        """Where nobody has answered just now, nobody is waited for again, unless it is worth it (`patient`)."""
        standing = self._standing
        if standing.gone is not None and not patient and time.monotonic() - standing.at < GONE_SECONDS:
            raise UnreachableError(str(standing.gone))
        try:
            yield
        except UnreachableError as error:
            standing.gone, standing.at = error, time.monotonic()
            raise
        standing.gone = None


def open_team(url: str, root: Path, rhythm: Rhythm | None = None) -> Team:
    """The team's store at a URL, seen from a local store. Raises StoreError for a URL that can be none, and where what
    reaches it is not installed."""
    if (fault := fault_of_team_url(url)) is not None:
        raise StoreError(f"the team's store: {fault}")
    plain = url.rstrip("/")
    kept = root.resolve() / "elsewhere" / hashlib.sha256(plain.encode()).hexdigest()[:16]
    objects = objects_at(plain)
    if isinstance(objects, FolderObjects) and objects.is_empty() and kept.is_dir():
        raise StoreError(
            f"{plain}: is empty, and this machine knows of results in it: mount what is in it. If they were deleted, "
            f"delete {kept} too. `--store off` goes on without"
        )
    return Team(plain, Notes(plain, kept), objects, rhythm or Rhythm())


def manifest_name(stage: str, key: str) -> str:
    """Where the manifest of an artifact is."""
    return f"manifests/{stage}/{key}.json"


def lease_name(stage: str, key: str) -> str:
    """Where the lease of a key is."""
    return f"leases/{stage}/{key}.json"


def files_place(stage: str, key: str, upload: str) -> str:
    """The folder of the files that one machine has sent."""
    return f"files/{stage}/{key}/{upload}"
