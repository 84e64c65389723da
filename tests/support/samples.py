"""Valid configs of a stage, from `samples.py` in the folder of its tests, or in that of its chapter."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.modules import load_module
from tunemill.stages.declaration import Stage

TESTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Samples:
    """What a valid config needs. A stage whose every value is valid by itself needs none of it.

    `smallest`: values that it cannot do without. `beside`: for a field that only makes sense beside others what those
    must be, None to leave one out. `values`: of a field whose type alone does not say what is valid, some that are.
    `refused`: fields that refuse every value but one, with a reason of their own. `idle`: fields that ask for nothing
    here, whatever they say.
    """

    smallest: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    values: Mapping[str, list[Any]] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    idle: frozenset[str] = frozenset()

    def __or__(self, other: "Samples") -> "Samples":
        """Both, those of `other` first."""
        return Samples(
            {**self.smallest, **other.smallest},
            {**self.beside, **other.beside},
            {**self.values, **other.values},
            self.refused | other.refused,
            self.idle | other.idle,
        )


def samples_of(stage: Stage) -> Samples:
    """The samples in the folder of the stage's tests, which mirrors that of its body, or else in one around it."""
    folder = TESTS.joinpath(*stage.body.split(":")[0].split(".")[1:-1])
    around = (place / "samples.py" for place in (folder, *folder.parents))
    found = next((file for file in around if file.is_file() and file.is_relative_to(TESTS)), None)
    return Samples() if found is None else load(found)


def load(file: Path) -> Samples:
    """`SAMPLES` of a file."""
    found: Samples = load_module(file).SAMPLES
    return found
