"""A node of the graph before its slice is cut, and a stage that reads what another one quantized."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.stages.declaration import Stage


@dataclass(frozen=True)
class Place:
    """A node whose slice has not been cut yet. `given` are the values of fields that are no keys.

    `named_by` are the keys that the graph took some of them from. `about` is the dataset or the model of which a
    pipeline has one such node each.
    """

    name: str
    stage: Stage
    inputs: Mapping[str, tuple[str, ...]]
    entry: KeyPath | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    about: str | None = None
    named_by: Mapping[str, KeyPath] = field(default_factory=dict)


def reading(stage: Stage, *made_by: Stage) -> Stage:
    """The stage where it reads a quantized model: what stores that shapes the result too."""
    libraries = (name for one in made_by for name in one.libraries)
    return replace(stage, libraries=tuple(dict.fromkeys((*stage.libraries, *libraries))))
