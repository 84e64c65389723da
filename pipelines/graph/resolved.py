"""A node whose key is known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.resources.store import Absent, Published


@dataclass(frozen=True)
class Resolved:
    """A node whose key is known: what the store has for it. `sources` are their identities with all that they tell."""

    key: str
    document: Mapping[str, Any]
    found: Published | Absent
    sources: Mapping[str, Sequence[Mapping[str, str]]]
