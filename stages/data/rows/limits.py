"""How long rows may be, and what happens to those that are not."""

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["drop", "truncate", "raise"]


@dataclass(frozen=True)
class Limits:
    """Tokens that a row may have; `key` is the setting that says how many at most."""

    longest: int
    key: str
    shortest: int
    strategy: Strategy


# Keys that say how rows are put into sequences, and that ask for nothing where none are.
PACKING_KEYS = ("sample_packing_bin_size", "sample_packing_group_size", "sample_packing_sequentially")
