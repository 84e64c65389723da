"""What is said of objects of a shared place."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Stored:
    """The contents of an object, the `mark` of this version of it, and when it was written by the place's own clock."""

    content: bytes
    mark: str
    changed: datetime


@dataclass(frozen=True)
class Entry:
    """An object of a listing: its name below the place, its size, its mark, and when it was written."""

    name: str
    bytes: int
    mark: str
    changed: datetime
