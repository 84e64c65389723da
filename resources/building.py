"""Attempts to compute a key: each in a folder of its own, so that no two ever write into one.

`building/<stage>/<key>.lease` says who holds the right; `building/<stage>/<key>/<token>/` is this holder's folder. An
attempt that dies leaves its checkpoints, and the next holder moves them into its own folder: a holder that was only
stopped meanwhile and wakes up finds its folder gone, and fails.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tunemill.resources.folders import listed, read_json, remove_tree
from tunemill.resources.identity import files_below
from tunemill.resources.lease import Lease, is_held, lease
from tunemill.resources.team_lease import TeamLease

USES_FILE = "uses.json"
# Whose attempt it is, and how it ended if it gave no artifact.
NODE_FILE = "node.json"
END_FILE = "end.json"
# What the stage's process printed, in the folder of logs.
OUTPUT_FILE = "output.log"


@dataclass(frozen=True)
class WorkFolders:
    """Where a stage's body writes."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    def make(self) -> None:
        """Make those that are not there yet."""
        for part in (self.data, self.checkpoints, self.logs):
            part.mkdir(exist_ok=True)


@dataclass(frozen=True)
class Building(WorkFolders):
    """The folders of a computation in progress, and the right to publish what comes of it: here, and for the team."""

    lease: Lease
    team_lease: TeamLease | None = None

    @property
    def stage(self) -> str:
        return self.folder.parent.parent.name

    @property
    def key(self) -> str:
        return self.folder.parent.name


@contextmanager
def attempt(
    place: Path, say: Callable[[str], None], uses: Sequence[tuple[str, str]] = (), node: str = ""
) -> Iterator[Building]:
    """Hold the right to compute the key of `place` (<stage>/<key>), with the checkpoints of those who died over it.

    `uses` are (stage, key) of the artifacts that it reads; `node` is `pipeline/node`, for which it is computed.
    """
    with lease(lease_of(place), say) as held:
        building = Building(place / held.token, held)
        building.folder.mkdir(parents=True)
        (building.folder / USES_FILE).write_text(json.dumps(sorted(set(uses))))
        (building.folder / NODE_FILE).write_text(json.dumps({"node": node, "started": time.time()}))
        _take_over(place, building)
        building.make()
        try:
            with contextlib.ExitStack() as at_end:
                at_end.push(lambda kind, _error, _place: _note_end(building, kind))
                yield building
        finally:
            _clear(building)


def lease_of(place: Path) -> Path:
    """The lease of a key that is or was computed at `place`."""
    return place.with_name(f"{place.name}.lease")


def _take_over(place: Path, building: Building) -> None:
    """Move the newest checkpoints of holders that are dead into this one's folder; clear away the rest of theirs."""
    others = [folder for folder in listed(place) if folder != building.folder and folder.is_dir()]
    if (newest := _newest_checkpoints(others)) is not None:
        newest.rename(building.checkpoints)
    for folder in others:
        remove_tree(folder)


def _newest_checkpoints(attempts: Sequence[Path]) -> Path | None:
    resumable = [folder / "checkpoints" for folder in attempts if has_checkpoints(folder)]
    return max(resumable, key=lambda path: path.stat().st_mtime_ns, default=None)


def left_checkpoints(place: Path) -> Path | None:
    """The checkpoints that the next holder of the key of `place` would take over; None while somebody computes it."""
    if is_held(lease_of(place)):
        return None
    return _newest_checkpoints([folder for folder in listed(place) if folder.is_dir()])


def has_checkpoints(building: Path) -> bool:
    """Whether an attempt can be resumed."""
    return bool(listed(building / "checkpoints"))


def uses_of(building: Path) -> list[tuple[str, str]]:
    """(stage, key) of the artifacts that an attempt reads; none where it does not say."""
    uses = read_json(building / USES_FILE)
    if not isinstance(uses, list):
        return []
    return [(str(item[0]), str(item[1])) for item in uses if isinstance(item, list) and len(item) == 2]


def _note_end(building: Building, kind: type[BaseException] | None) -> None:
    """How an attempt ended, for whoever looks at its log.

    Where the disk is full or the folder gone, what ended the attempt matters more.
    """
    if kind is not None:
        how = "failed" if issubclass(kind, Exception) else "interrupted"
        with contextlib.suppress(OSError):
            (building.folder / END_FILE).write_text(json.dumps({"how": how, "at": time.time()}))


def _clear(building: Building) -> None:
    """Leave nothing of an attempt behind but what the next one can go on from, or look at."""
    remove_tree(building.data)
    remove_tree(building.folder / "ready")
    if not has_checkpoints(building.folder) and not any(files_below(building.logs)):
        remove_tree(building.folder)
        with contextlib.suppress(OSError):
            building.folder.parent.rmdir()
