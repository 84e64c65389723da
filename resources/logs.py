"""Logs of stages: what was printed by attempts at a node's artifact, and by those that became one.

The log of an artifact lies in it. That of an attempt lies in the attempt's folder until somebody tries again.
"""

import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Literal

from tunemill.resources.building import END_FILE, NODE_FILE, OUTPUT_FILE, lease_of
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import listed, read_json
from tunemill.resources.lease import living_holder
from tunemill.resources.store import Store

State = Literal["computed", "set aside", "running", "failed", "interrupted", "broken off"]


@dataclass(frozen=True)
class StageLog:
    """A log. `at` is when its stage ended, or started if it still runs, in seconds since 1970; None if unknown.

    `node` is the `pipeline/node` that it was computed for, `folder` that of the artifact or the attempt.
    """

    folder: Path
    state: State
    at: float | None
    node: str

    @property
    def file(self) -> Path:
        return self.folder / "logs" / OUTPUT_FILE

    @property
    def place(self) -> tuple[str, str]:
        """(stage, key) of what was computed or attempted."""
        holder = self.folder if self.state in ("computed", "set aside") else self.folder.parent
        return holder.parent.name, holder.name.partition(".")[0]


def size_of(log: StageLog) -> int | None:
    """The bytes of a log; None if none was written.

    Raises StoreError if it is gone, or no regular file, and OSError if it cannot be looked at.
    """
    try:
        state = log.file.stat()
    except (FileNotFoundError, NotADirectoryError):
        if reason := _why_gone(log):
            raise StoreError(reason) from None
        return None
    if not stat.S_ISREG(state.st_mode):
        raise StoreError(
            f"{log.file}: is no regular file, so it is no log; `tunemill cache verify` sets it aside"
        )
    return state.st_size


def _why_gone(log: StageLog) -> str | None:
    if log.state not in ("computed", "set aside"):
        return None
    whose = f"{log.node}: " if log.node else ""
    if not log.folder.is_dir():
        return (
            f"{whose}it is gone from the store ({log.folder}); run its pipeline again, which computes it anew"
        )
    files = _document(log.folder / "manifest.json").get("files")
    was_there = isinstance(files, dict) and f"logs/{OUTPUT_FILE}" in files
    return f"{whose}its log is gone from the store ({log.file})" if was_there else None


def attempts(store: Store) -> list[StageLog]:
    """Every attempt that runs or has left something. Raises StoreError where the store cannot be listed."""
    found = []
    for stage in _folders(store.root / "building"):
        for place in _folders(stage):
            holder = living_holder(lease_of(place))
            token = holder.token if holder is not None else None
            found += [_attempt(folder, runs=folder.name == token) for folder in _folders(place)]
    return found


def artifact_log(store: Store, stage: str, key: str) -> StageLog:
    """The log of what is, or should be, in the store."""
    return _artifact(store.folder(stage, key), "computed")


def every_log(store: Store, node: str, place: tuple[str, str] | None) -> list[StageLog]:
    """All logs there are of a node (`pipeline/node`) and of the artifact that it points to, the newest first."""
    aside = [folder for stage in _folders(store.root / "set_aside") for folder in _folders(stage)]
    found = [_artifact(folder, "computed") for folder in store.artifacts()]
    found += [_artifact(folder, "set aside") for folder in aside]
    found += attempts(store)
    own = [log for log in found if log.place == place or (node and log.node == node)]
    return sorted(own, key=_when, reverse=True)


def newest_log(store: Store, node: str, place: tuple[str, str] | None) -> StageLog | None:
    """The log of a node's newest attempt, or of its artifact if nobody has tried in vain since it was pointed to."""
    since = _pointed_at(store, node) if place is not None else -inf
    tried = [log for log in attempts(store) if log.place == place or (node and log.node == node)]
    newer = [log for log in tried if log.state == "running" or _when(log) > since]
    if newer:
        return max(newer, key=_when)
    return artifact_log(store, *place) if place is not None else None


def still_runs(log: StageLog) -> bool:
    """Whether the attempt goes on."""
    holder = living_holder(lease_of(log.folder.parent))
    return holder is not None and holder.token == log.folder.name


def after_its_end(store: Store, log: StageLog) -> StageLog:
    """What has become of an attempt that ran."""
    if log.folder.is_dir():
        return _attempt(log.folder, runs=False)
    artifact = artifact_log(store, *log.place)
    return artifact if artifact.folder.is_dir() else replace(log, state="broken off")


def _when(log: StageLog) -> float:
    """For the order of logs: what runs is the newest."""
    if log.state == "running":
        return inf
    return -inf if log.at is None else log.at


def _pointed_at(store: Store, node: str) -> float:
    pipeline, _, name = node.partition("/")
    try:
        return (store.refs.root / pipeline / f"{name}.json").stat().st_mtime if node else inf
    except OSError:
        return -inf


def _attempt(folder: Path, *, runs: bool) -> StageLog:
    told, end = _document(folder / NODE_FILE), _document(folder / END_FILE)
    node = told.get("node")
    how, at = end.get("how"), end.get("at")
    state: State = "interrupted" if how == "interrupted" else "failed" if how == "failed" else "broken off"
    if runs:
        state, at = "running", told.get("started")
    seen = _modified(folder / "logs" / OUTPUT_FILE) or _modified(folder / "logs")
    return StageLog(folder, state, _number(at) or seen, node if isinstance(node, str) else "")


def _artifact(folder: Path, state: State) -> StageLog:
    facts = _document(folder / "manifest.json")
    pipeline, node, started, seconds = (
        facts.get(name) for name in ("pipeline", "node", "started", "seconds")
    )
    try:
        at = datetime.fromisoformat(started).timestamp() if isinstance(started, str) else None
    except (ValueError, OverflowError):
        at = None
    ended = at + (_number(seconds) or 0.0) if at is not None else _modified(folder / "logs" / OUTPUT_FILE)
    return StageLog(folder, state, ended, f"{pipeline}/{node}" if pipeline and node else "")


def _document(path: Path) -> dict[str, object]:
    document = read_json(path)
    return document if isinstance(document, dict) else {}


def _number(value: object) -> float | None:
    # Beyond it, a time is no date.
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e11 else None


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None


def _folders(folder: Path) -> Iterator[Path]:
    """The folders in one; leases and strangers' files lie beside them."""
    for path in listed(folder) if folder.is_dir() else ():
        if path.is_dir() and path.suffix != ".lease":
            yield path
