"""What a run did, node by node: for the summary, the report, and for what changed since the run before.

<root>/runs/<pipeline>/<started>-<run>.json, beside it the report of the run. Every node adds itself when it is done, so
that a run that is killed has told what it did. What is said there is history: what a node has now, the store says.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tunemill.pipelines.run.finished import Finished
from tunemill.pipelines.run.materialize import Result
from tunemill.resources.folders import read_json
from tunemill.resources.local import LONGEST_NAME, short_name
from tunemill.resources.store import Published, Store

FOLDER = "runs"
# Older ones are deleted with their reports.
KEPT = 30
SHORT_RUN = 8
# The report of how a pipeline, or a sweep, stands without a run on record: one file, written over.
STANDING = "standing.html"


@dataclass(frozen=True)
class Done:
    """What became of a node in a run.

    `seconds` it took here, `computed_in` when it was computed: what a cached one has saved. `figures` are its metrics,
    which later runs are compared with, `place` the stage and the key of its artifact.
    """

    state: str
    seconds: float
    computed_in: float | None = None
    reasons: Sequence[str] = ()
    message: str | None = None
    digest: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    place: tuple[str, str] | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run: when it began (ISO 8601, UTC), and its nodes by name. `file` is where that stands."""

    file: Path
    run: str
    started: str
    nodes: Mapping[str, Done]

    @property
    def report(self) -> Path:
        """Where the report of the run is, or will be."""
        return self.file.with_suffix(".html")

    @property
    def seconds(self) -> float:
        """What it took: the seconds of all nodes."""
        return sum(done.seconds for done in self.nodes.values())

    @property
    def saved(self) -> float:
        """The seconds that computing again would have taken for what was cached."""
        return sum(
            done.computed_in or 0.0 for done in self.nodes.values() if done.state in ("cached", "pinned")
        )

    def named(self, *states: str) -> list[str]:
        """The nodes in one of these states."""
        return [name for name, done in self.nodes.items() if done.state in states]


def done_of(item: Finished) -> Done:
    """What is recorded of a node that is finished."""
    done = Done(item.state, round(item.seconds, 3), reasons=list(item.reasons), message=item.message)
    return done if item.published is None else _with_artifact(done, item.published)


def done_from(result: Result) -> Done:
    """What is recorded of a node that a run has brought up to date."""
    done = Done(result.state, round(result.seconds, 3), reasons=list(result.reasons))
    return _with_artifact(done, result.published)


def _with_artifact(done: Done, own: Published) -> Done:
    return replace(
        done,
        computed_in=float(own.manifest["seconds"]),
        digest=own.digest,
        figures=dict(own.manifest["metrics"]),
        place=(own.stage, own.key),
    )


def report_place(store: Store, pipeline: str, run: str | None) -> Path:
    """Where the report of a run with a record is, or will be; with None that of how it stands."""
    return _folder(store, pipeline) / STANDING if run is None else _open(store, pipeline, run).report


def record(store: Store, pipeline: str, run: str, nodes: Mapping[str, Done]) -> RunRecord:
    """Add nodes to the record of a run. A store that cannot be written keeps none."""
    before = _open(store, pipeline, run, sum(done.seconds for done in nodes.values()))
    found = RunRecord(before.file, run, before.started, {**before.nodes, **nodes})
    document = {
        "run": run,
        "pipeline": pipeline,
        "started": found.started,
        "nodes": {name: vars(done) for name, done in found.nodes.items()},
    }
    beside = found.file.with_name(f".{found.file.name}.{os.getpid()}")
    with suppress(OSError):
        beside.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(document))
        beside.replace(found.file)
    return found


def latest_records(store: Store, pipeline: str) -> Iterator[RunRecord]:
    """The records of a pipeline's runs, the newest first."""
    for file in reversed(_files(store, pipeline)):
        if (found := _read(file)) is not None:
            yield found


def last_report(store: Store, pipeline: str) -> Path | None:
    """The newest report that there is."""
    pages = (file.with_suffix(".html") for file in reversed(_files(store, pipeline)))
    return next((page for page in pages if page.is_file()), None)


def forget_old(store: Store, pipeline: str) -> None:
    """Delete the oldest records beyond `KEPT`, and reports that have no record."""
    files = _files(store, pipeline)
    known = {STANDING, *(file.with_suffix(".html").name for file in files[-KEPT:])}
    for file in files[:-KEPT]:
        with suppress(OSError):
            file.unlink()
    with suppress(OSError):
        for page in _folder(store, pipeline).glob("[!.]*.html"):
            if page.name not in known:
                page.unlink(missing_ok=True)


def _open(store: Store, pipeline: str, run: str, ago: float = 0.0) -> RunRecord:
    """The record of a run as far as it is written; one that is new began so many seconds `ago`."""
    ending = f"-{run[:SHORT_RUN]}.json"
    own = next((file for file in reversed(_files(store, pipeline)) if file.name.endswith(ending)), None)
    found = None if own is None else _read(own)
    if found is not None and found.run == run:
        return found
    now = datetime.now(UTC) - timedelta(seconds=ago)
    file = _folder(store, pipeline) / f"{now:%Y%m%dT%H%M%S}{ending}"
    return RunRecord(file, run, now.isoformat(timespec="seconds"), {})


def _folder(store: Store, pipeline: str) -> Path:
    return store.root / FOLDER / short_name(pipeline, LONGEST_NAME)


def _files(store: Store, pipeline: str) -> list[Path]:
    """Their names begin with the time."""
    try:
        names = os.listdir(_folder(store, pipeline))  # noqa: PTH208  of hundreds of pipelines
    except OSError:
        return []
    return [
        _folder(store, pipeline) / name
        for name in sorted(names)
        if name.endswith(".json") and not name.startswith(".")
    ]


def _read(file: Path) -> RunRecord | None:
    """A record; None where it is damaged, or of another version."""
    found = read_json(file)
    try:
        nodes = {name: Done(**done) for name, done in found["nodes"].items()}
        return RunRecord(file, str(found["run"]), str(found["started"]), nodes)
    except (TypeError, KeyError, AttributeError):
        return None
