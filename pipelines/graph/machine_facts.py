"""What an artifact was made with, beside what is in its key: recorded in its lineage, and in no key."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunemill import __version__
from tunemill.pipelines.graph.keys import whole_version
from tunemill.pipelines.graph.told_places import told_variable


def made_with(libraries: Iterable[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """Whole versions of `libraries`, the interpreter, and how many cores: the order of sums depends on them."""
    return {
        "packages": {library: whole_version(library) for library in libraries},
        "tunemill": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "environment": dict(environment),
    }


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What of two such records differs, in words, packages first."""
    packages, others = then.get("packages", {}), now["packages"]
    for name, version in packages.items():
        if name in others and version != others[name]:
            yield f"{name} {version} -> {others[name]}"
    for name in ("tunemill", "python", "system", "cores"):
        if name in then and then[name] != now[name]:
            yield f"{name} {then[name]} -> {now[name]}"
    before, after = then.get("environment", {}), now["environment"]
    for name in sorted({*before, *after}):
        # What was published tells less of it.
        if before.get(name) not in (after.get(name), told_variable(after.get(name, ""))):
            yield f"{name} {before.get(name, 'unset')} -> {after.get(name, 'unset')}"
