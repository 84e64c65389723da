"""`tunemill logs`: what the stage behind a node has printed, now or last time."""

import argparse
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from tunemill.pipelines.commands.find_artifact import (
    find_lineage,
    is_digest,
    is_path,
    named_node,
    not_found,
)
from tunemill.pipelines.commands.listing import readable_bytes, show
from tunemill.pipelines.commands.log_text import POLL_SECONDS, copy, follow, start_of_end, writer
from tunemill.pipelines.commands.options import add_command, add_state, count_of, store_of
from tunemill.pipelines.commands.signals import end_on_interrupt_and_term
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.config.spans import escaped
from tunemill.pipelines.run.team import with_files
from tunemill.resources.errors import StoreError
from tunemill.resources.logs import (
    StageLog,
    after_its_end,
    attempts,
    every_log,
    newest_log,
    size_of,
    still_runs,
)
from tunemill.resources.store import Published, Store

INTERRUPTED = 130
SAID = {
    "computed": "the artifact computed at",
    "set aside": "an artifact that was set aside, computed at",
    "running": "an attempt that runs since",
    "failed": "an attempt that failed at",
    "interrupted": "an attempt that was interrupted at",
    "broken off": "an attempt that broke off at",
}


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "logs", logs, text)
    parser.add_argument(
        "what",
        nargs="+",
        metavar="NODE",
        help="NODE, PIPELINE/NODE, PIPELINE.YML NODE, or the path or digest of a result",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the attempt that runs ends")
    parser.add_argument("-n", "--lines", type=count_of("lines"), metavar="N", help="only the last N lines")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="list all logs there are of the node")
    instead.add_argument("--path", action="store_true", help="print only the path of the log")
    add_state(parser)


def logs(options: argparse.Namespace) -> int:
    """Print the newest log of a node; 130 if following it was interrupted."""
    store, node, place = find_node(options.what, store_of(options, looks=True))
    if options.list:
        return _list(every_log(store, node, place))
    log = newest_log(store, node, place)
    if log is None:
        raise StoreError(f"{node}: the attempt has just ended and left nothing; ask again")
    log = _within_reach(store, replace(log, node=log.node or node))
    if options.path:
        if size_of(log) is None:
            raise StoreError(f"{_named(log)} has no log: there is no {log.file}")
        print(log.file)
        return 0
    print(f"the log of {_named(log)}", file=sys.stderr, flush=True)
    if not options.follow:
        return _print(log, options.lines)
    if log.state != "running":
        print("nothing runs, so there is nothing to follow", file=sys.stderr)
        return _print(log, options.lines)
    try:
        end_on_interrupt_and_term()
        return _follow(store, log, options.lines)
    except KeyboardInterrupt:
        return INTERRUPTED


def _within_reach(store: Store, log: StageLog) -> StageLog:
    """The log with its artifact here, where only the team has that; or that of what was set aside in its place."""
    if log.state != "computed" or log.folder.is_dir():
        return log
    found = store.lookup(*log.place)
    if isinstance(found, Published):
        with_files(store, found)
        return log
    aside = [one for one in every_log(store, "", log.place) if one.state == "set aside"]
    return replace(aside[0], node=log.node) if aside else log


def find_node(given: list[str], store: Store) -> tuple[Store, str, tuple[str, str] | None]:
    """The store, `pipeline/node` and (stage, key) of the artifact; the second empty or the third None if unknown.

    Raises StoreError and ConfigError that say what there is instead.
    """
    if len(given) > 2:
        raise StoreError(f"{' '.join(given)}: name one node, or a pipeline's YAML and one of its nodes")
    what = given[0] if len(given) == 1 else f"{_pipeline_of(given[0])}/{given[1]}"
    if len(given) == 1 and is_path(what):
        return _of_artifact(what, store)
    refs = {f"{pipeline}/{node}": ref for pipeline, node, ref in store.refs.all()}
    places = list(dict.fromkeys([*refs, *(log.node for log in attempts(store) if log.node)]))
    if (node := named_node(what, places)) is not None:
        ref = refs.get(node)
        return store, node, (ref.stage, ref.key) if ref is not None else None
    if is_digest(what.removeprefix(ASSET_SCHEME)):
        return _of_artifact(what, store)
    raise StoreError(not_found(what, places, store))


def _of_artifact(what: str, store: Store) -> tuple[Store, str, tuple[str, str]]:
    """Of a path or a digest; with the node if this points to it now."""
    found = find_lineage(what, store)
    stage, key, node = (found.lineage[name] for name in ("stage", "key", "node"))
    if found.store is None:
        raise StoreError(f"{what}: {node} is not in {store.root}, and its log stayed where it was computed")
    ref = found.store.refs.read(*node.split("/", 1)) if "/" in node else None
    return found.store, node if ref is not None and ref.key == key else "", (stage, key)


def _pipeline_of(path: str) -> str:
    """The name of the pipeline in a YAML. Raises ConfigError if it says none that can be read."""
    # Only this form of the command pays for the import.
    from tunemill.pipelines.graph.load import pipeline_name

    return pipeline_name(Path(path))


def _list(found: list[StageLog]) -> int:
    # No table: that would cut paths into lines, which nobody could copy.
    line = "{:<11}  {:<25}  {:>10}  {}".format
    show(line("of", "time", "size", "file"))
    for log in found:
        show(line(log.state, _time(log), _size(log), log.file))
    return 0


def _size(log: StageLog) -> str:
    """The size of a log in a list, in which one that cannot be read hides no other."""
    try:
        size = size_of(log)
    except (StoreError, OSError):
        return "unreadable"
    return "no log" if size is None else readable_bytes(size)


def _print(log: StageLog, lines: int | None) -> int:
    if size_of(log) is None:
        print(f"{_named(log)} has no log: its stage wrote none", file=sys.stderr)
        return 0
    with log.file.open("rb") as file:
        _go_to(file, lines)
        if not copy(file, writer()) and not size_of(log):
            print("it is empty: the stage has printed nothing", file=sys.stderr)
    return 0


def _follow(store: Store, log: StageLog, lines: int | None) -> int:
    """Print what comes until the attempt ends. Its log is opened once, so it is read to its end wherever it moves."""
    with ExitStack() as opened:
        file: BinaryIO | None = None
        while file is None and still_runs(log):
            file = _opened(log, opened)
            if file is None:
                time.sleep(POLL_SECONDS)
        end = log if file is not None else after_its_end(store, log)
        if file is None and (file := _opened(end, opened)) is None:
            print(f"{_named(end)} has no log: its stage wrote none", file=sys.stderr)
            return 0
        _go_to(file, lines)
        copied = follow(file, writer(), lambda: still_runs(log))
    end = after_its_end(store, log)
    print(f"this was the log of {_named(end)}" + ("" if copied else "; it is empty"), file=sys.stderr)
    return 0


def _opened(log: StageLog, opened: ExitStack) -> BinaryIO | None:
    if size_of(log) is None:
        return None
    try:
        return opened.enter_context(log.file.open("rb"))
    except FileNotFoundError:
        return None


def _go_to(file: BinaryIO, lines: int | None) -> None:
    file.seek(0 if lines is None else start_of_end(file, lines))


def _named(log: StageLog) -> str:
    whose = f"{log.node}: " if log.node else ""
    return escaped(f"{whose}{SAID[log.state]} {_time(log)}")


def _time(log: StageLog) -> str:
    if log.at is None:
        return "an unknown time"
    return datetime.fromtimestamp(log.at, UTC).isoformat(timespec="seconds")
