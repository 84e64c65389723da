"""What became of a gate, remembered by the gate and the files that it looked at: plans ask far more often than runs.

Comparing two models computes with NumPy, which takes longer to import than a plan takes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tunemill.resources.canonical import hash_document
from tunemill.resources.identity import StatCache, hash_file
from tunemill.resources.store import Published, names_an_artifact
from tunemill.stages.evaluation import gate as gate_module
from tunemill.stages.evaluation.gate import Gate

if TYPE_CHECKING:
    from tunemill.stages.evaluation.gate_outcome import Outcome


def remembered_outcome(gate: Gate, artifacts: Mapping[str, Published]) -> "Outcome":
    """What becomes of a gate with these artifacts, by node: computed once for the same files."""
    from tunemill.stages.evaluation.gate_outcome import Outcome, outcome_of

    there = [artifacts[name] for name in gate.nodes if name in artifacts]
    folders = {name: published.data for name, published in artifacts.items()}
    if len(there) < len(gate.nodes) or not all(names_an_artifact(one.data) for one in there):
        return outcome_of(gate, folders)
    cache_of_store = StatCache(there[0].data.parents[3] / "stat_cache.sqlite")
    name = f"gate {_mark(gate, there)}"
    known = cache_of_store.recall(name)
    if known is not None:
        return Outcome(**json.loads(known["outcome"]))
    found = outcome_of(gate, folders)
    cache_of_store.remember(name, {"outcome": json.dumps(asdict(found))})
    return found


def _mark(gate: Gate, evaluations: list[Published]) -> str:
    """A hash of all that decides: the gate, how it is decided, and the files with their sizes and times."""
    paths = [path for one in evaluations for path in sorted(one.data.iterdir())]
    states = [path.stat() for path in paths]
    files = [[path.name, state.st_size, state.st_mtime_ns] for path, state in zip(paths, states, strict=True)]
    asked = f"{type(gate).__name__} {gate.model_dump_json()}"
    digests = [[one.key, one.digest] for one in evaluations]
    return hash_document({"gate": asked, "evaluations": digests, "files": files, "sources": _sources()})


@cache
def _sources() -> str:
    """A hash of the code that decides: another version may say something else."""
    assert gate_module.__file__ is not None, "it is a file"
    room = Path(gate_module.__file__).parent
    files = [*room.glob("gate*.py"), room / "scored.py", *(room / "statistics").glob("*.py")]
    return hash_document({file.name: hash_file(file) for file in sorted(files)})
