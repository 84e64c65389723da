"""Whether what a pipeline reads from outside has changed, and stands still: what a watcher keeps from look to look.

A look at files is their names, sizes and times, and costs no reading. Only what has changed its look and then stood
still is read, so that a file that is being copied is neither read at every look nor trained on half.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tunemill.pipelines.graph.keys import identify_source, keyed, source_settings
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.source_versions import contents_of
from tunemill.pipelines.run.figures import count_of
from tunemill.resources.canonical import SHORT, hash_document
from tunemill.resources.errors import SourceWarning, StoreError
from tunemill.resources.identity import StatCache, source_files
from tunemill.resources.local import shown


@dataclass(frozen=True)
class Seen:
    """What was seen last: how everything looked when it was read, and what it held, by node.

    `moving` is another look, first seen at `since`, that has not stood still for long enough yet.
    """

    look: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)
    moving: str | None = None
    since: float = 0.0

    def as_text(self) -> str:
        """For Dagster to keep. Its length goes with the number of nodes that read something."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True)
class Noticed:
    """What a look has found: the nodes whose sources hold something else now, or why there is nothing to do."""

    seen: Seen
    changed: tuple[str, ...] = ()
    reason: str = ""


def seen_in(text: str | None) -> Seen | None:
    """What `as_text` wrote; None where there is nothing, or nothing that can be read."""
    try:
        return None if text is None else Seen(**json.loads(text))
    except (ValueError, TypeError):
        return None


def notice(
    seen: Seen | None, look: str, now: float, settle: float, read: Callable[[], dict[str, str]]
) -> Noticed:
    """Compare a look with the last one. `read` gives the contents by node; `now` and `settle` are in seconds.

    The first look starts nothing: it is what later ones are compared with.
    """
    if seen is None:
        contents = read()
        return Noticed(
            Seen(look, contents), reason=f"watching {count_of(len(contents), 'source')} from now on"
        )
    if look == seen.look:
        return Noticed(
            replace(seen, moving=None), reason=f"{count_of(len(seen.contents), 'source')}, unchanged"
        )
    since = seen.since if look == seen.moving else now
    if now - since < settle:
        left = round(settle - (now - since))
        moved = replace(seen, moving=look, since=since)
        return Noticed(
            moved, reason=f"something is changing: a run waits until it stands still, {left} s more"
        )
    contents = read()
    changed = tuple(
        name
        for name, held in contents.items()
        if _name(held) == _name(seen.contents.get(name, "")) and held != seen.contents[name]
    )
    after = Seen(look, contents, since=since)
    return Noticed(after, changed, "" if changed else "touched, but the contents are the same")


def look_at(pipeline: Pipeline, cache: StatCache) -> str:
    """How all sources look now. Raises StoreError for one that is not there, or cannot be reached."""
    return hash_document({node.name: _looks(node, cache) for node in pipeline.nodes if node.sources})


def read_contents(pipeline: Pipeline, cache: StatCache) -> dict[str, str]:
    """What the sources hold, by node: which they are, and their contents. Raises ConfigError for one that is gone."""
    return {
        node.name: f"{hash_document(node.sources)[:SHORT]}:{contents_of(node, pipeline.document, cache)}"
        for node in pipeline.nodes
        if node.sources
    }


def _name(held: str) -> str:
    """Which sources it was read from: other ones are another setting, and no change of contents."""
    return held.partition(":")[0]


def _looks(node: Node, cache: StatCache) -> list[object]:
    found: list[object] = []
    for name_of_field, names in node.sources.items():
        revision, token, counting = source_settings(node, name_of_field)
        for name in names:
            if "://" in name:
                found.append(keyed(_reached(name, revision, token, counting, cache)))
            else:
                found.append(_look(Path(name)))
    return found


def _reached(
    name: str, revision: object, token: object, counting: object, cache: StatCache
) -> dict[str, str]:
    """The identity of what a URL names, without the nonce of one that has none. Raises StoreError."""
    with warnings.catch_warnings():
        # What was there last is no news; that it cannot be reached is.
        warnings.simplefilter("error", SourceWarning)
        try:
            found = identify_source(name, revision, cache, token, counting)  # type: ignore[arg-type]
        except SourceWarning as warning:
            raise StoreError(str(warning)) from None
    return {key: value for key, value in found.items() if key != "nonce"}


def _look(path: Path) -> list[object]:
    try:
        files = source_files(path) if path.is_dir() else [path]
        return [[file.relative_to(path).as_posix(), *_stat(file)] for file in files]
    except OSError as error:
        raise StoreError(f"{shown(path)}: {error.strerror}") from error


def _stat(file: Path) -> list[int]:
    state = file.stat()
    return [state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns]
