"""Whether what a pipeline names on this machine is there, and of a kind that can be read. Reads no rows, no network."""

import difflib
import importlib.util
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.slices import HUB_NAME, may_be_on_hub
from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, identify
from tunemill.resources.local import is_file, is_folder, is_there
from tunemill.resources.protocols import HUB_DATASETS, PACKAGES, package_hint, protocol_of
from tunemill.stages.declaration import SourceMark

LookAt = Callable[[Node], bool]
# Names beside a missing one that are compared with it.
COMPARED = 2000
NO_CACHE = StatCache(Path(os.devnull))
ADVICE = (
    "Models of the Hugging Face Hub are not fetched yet: hf download NAME --local-dir FOLDER, and give FOLDER"
)


def everything(_: Node) -> bool:
    """Look at every node."""
    return True


def nothing(_: Node) -> bool:
    """Look at none."""
    return False


def only_data(node: Node) -> bool:
    """Look at the nodes that prepare data."""
    return node.stage.prepares_data


def looked_at(node: Node, document: Document) -> Iterator[Problem]:
    """What is wrong with the sources of a node; a note where only this machine may lack them."""
    found = [problem for field in node.sources for problem in _sources(node, field, document)]
    yield from found
    at_fault = {problem.path for problem in found}
    for fault in node.config.faults():
        problem = problem_at(node.places[fault.key], document, "value", fault.reason)
        if problem.path not in at_fault:
            yield problem


def missing_source(node: Node, field: str, document: Document, reason: str) -> Problem:
    """The problem with a source that is not there, or cannot be looked at; suggests the nearest name beside it."""
    absent = next((name for name in node.sources[field] if "://" not in name and not is_there(name)), None)
    near = _beside(Path(absent), document.folder) if absent is not None and absent in reason else None
    if absent is not None and not node.config.marked(SourceMark).get(field, SourceMark()).remote:
        given = _given(node, field, document)
        reason += f". {ADVICE}" if isinstance(given, str) and HUB_NAME.fullmatch(given) else ""
    return problem_at(node.places[field], document, "value", reason, near)


def _sources(node: Node, field: str, document: Document) -> Iterator[Problem]:
    remote = node.config.marked(SourceMark).get(field, SourceMark()).remote
    reasons = [_unreachable(name) if "://" in name else _absent(name) for name in node.sources[field]]
    wrong = [reason for reason in reasons if reason is not None]
    given = _given(node, field, document)
    if not wrong:
        return
    if not remote and isinstance(given, str) and "/" in given and may_be_on_hub(given, document.folder):
        message = f"{given} is not on this machine, and plan and run need it there. {ADVICE}"
        yield problem_at(node.places[field], document, "elsewhere", message)
    else:
        more = f"; nor can {len(wrong) - 1} more be used" if len(wrong) > 1 else ""
        yield missing_source(node, field, document, f"{wrong[0]}{more}")


def _absent(name: str) -> str | None:
    """Why there is no file or folder at a path, in the words of who would read it."""
    if is_file(name) or is_folder(name):
        return None if os.access(name, os.R_OK) else f"{name}: Permission denied"
    try:
        # It has nothing to hash, so nothing is read and nothing remembered.
        identify(Path(name), NO_CACHE)
    except StoreError as error:
        return str(error)
    return None


def _beside(path: Path, seen_from: Path) -> str | None:
    """The name nearest to a missing one, in the folder in which it is looked for; as it is written in the YAML."""
    folder = next((parent for parent in path.parents if is_folder(parent)), None)
    if folder is None or len(path.name) > os.pathconf("/", "PC_NAME_MAX"):
        return None
    wanted = path.relative_to(folder).parts[0]
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, COMPARED)]
    except OSError:
        return None
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.7)
    found = folder / near[0] if near else None
    if found is not None and found.is_relative_to(seen_from):
        found = found.relative_to(seen_from)
    return None if found is None else str(found)


def _unreachable(url: str) -> str | None:
    """Why nothing behind a URL can be reached from this machine, whatever the network says."""
    if url.startswith(HUB_DATASETS):
        return None
    protocol = protocol_of(url)
    package = PACKAGES.get(protocol)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"{url}: {protocol}:// cannot be read here{package_hint(protocol)}"


def _given(node: Node, field: str, document: Document) -> object:
    """What the YAML says for a field."""
    value: object = document.data
    for part in node.places[field]:
        if isinstance(value, dict):
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value
