"""Whether what a pipeline names on this machine is there, and of a kind that can be read. Reads no rows, no network."""

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.config.slices import nearest_beside
from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, identify
from tunemill.resources.local import is_file, is_folder, is_there, shown
from tunemill.resources.protocols import HUB, PACKAGES, package_hint, protocol_of

LookAt = Callable[[Node], bool]
NO_CACHE = StatCache(Path(os.devnull))


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
    found = [problem for field in node.places_named for problem in _sources(node, field, document)]
    yield from found
    at_fault = {problem.path for problem in found}
    for fault in node.config.faults():
        problem = problem_at(node.places[fault.key], document, "value", fault.reason)
        if problem.path not in at_fault:
            yield problem
    for item in node.config.left_out():
        yield problem_at(node.places[item.key], document, "files", item.reason)


def missing_source(node: Node, field: str, document: Document, reason: str) -> Problem:
    """The problem with a source that is not there, or cannot be looked at; suggests the nearest name beside it."""
    absent = next(
        (name for name in node.places_named[field] if "://" not in name and not is_there(name)), None
    )
    near = _beside(Path(absent), document.folder) if absent is not None and absent in reason else None
    return problem_at(node.places[field], document, "value", reason, near)


def _sources(node: Node, field: str, document: Document) -> Iterator[Problem]:
    reasons = [lacks_package(name) if "://" in name else _absent(name) for name in node.places_named[field]]
    wrong = [reason for reason in reasons if reason is not None]
    if wrong:
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
    """The name nearest to a missing one, as it is written in the YAML."""
    found = nearest_beside(path)
    if found is not None and found.is_relative_to(seen_from):
        found = found.relative_to(seen_from)
    return None if found is None else str(found)


def no_folder(path: str) -> str | None:
    """Why there can be no folder at a whole path: something else is there, or around it."""
    there = next(place for place in (Path(path), *Path(path).parents) if is_there(place))
    return None if is_folder(there) else f"{shown(there)} is no folder; name one, or what can become one"


def lacks_package(url: str) -> str | None:
    """Why nothing behind a URL can be reached from this machine, whatever the network says."""
    if url.startswith(HUB):
        return None
    protocol = protocol_of(url)
    package = PACKAGES.get(protocol)
    if package is None or importlib.util.find_spec(package) is not None:
        return None
    return f"{url}: {protocol}:// cannot be reached here{package_hint(protocol)}"
