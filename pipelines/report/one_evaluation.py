"""An evaluation that is compared with another one, and the rows that it was made over."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import EvaluationData, PreferenceData

HOLDING_ROWS = (EvaluationData.__name__, PreferenceData.__name__)


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: how it was asked for, its data folder, and its lineage, where there is one."""

    name: str
    folder: Path
    lineage: Mapping[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """What it is."""
        known = self.lineage or {}
        facts = {name: known.get(name) for name in ("node", "key", "digest", "started")}
        return {"name": self.name, "path": str(self.folder), **facts}


def evaluation_data(found: Evaluated) -> frozenset[str]:
    """The digests of the rows that it was made over; none where its lineage is not known."""
    if found.lineage is None:
        return frozenset()
    ancestors = found.lineage["ancestors"]
    direct = [ancestors.get(edge["key"], {}) for edges in found.lineage["inputs"].values() for edge in edges]
    rows = [item for item in direct if item.get("artifact") in HOLDING_ROWS]
    # Where answers are scored that were generated before, the rows stand one step further.
    rows = rows or [item for item in ancestors.values() if item["artifact"] == EvaluationData.__name__]
    return frozenset(str(item["digest"]) for item in rows if item.get("digest"))
