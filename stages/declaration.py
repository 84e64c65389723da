"""What a stage declares about itself: its config slice, its inputs, its output, where its body lives.

A stage is a function from (its own config, its input artifacts) to one artifact. Everything that the
pipeline needs to know of a stage stands in its `Stage`; nothing here imports anything heavy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

from tunemill.stages.artifacts import Artifact

T = TypeVar("T")


@dataclass(frozen=True)
class RuntimeMark:
    """The field changes time or place, never the result: it stays out of the key."""


@dataclass(frozen=True)
class SourceMark:
    """The field names a local file or folder: the key holds the contents, not the name."""


@dataclass(frozen=True)
class EntryMark:
    """The field is read from this node's entry of a list such as `datasets:`."""

    falls_back: bool = False


@dataclass(frozen=True)
class YamlMark:
    """The field is read from another place in the YAML than the top-level key of its name."""

    path: str


# The description of a Runtime field gives the reason after a colon.
Runtime = Annotated[T, RuntimeMark()]
Source = Annotated[T, SourceMark()]
Entry = Annotated[T, EntryMark()]
EntryOrTop = Annotated[T, EntryMark(falls_back=True)]


class ConflictError(ValueError):
    """Two settings of one slice exclude each other; `keys` are the field names at fault."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


class Settings(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageConfig(Settings):
    """Exactly the keys that one stage reads."""

    @classmethod
    def marked(cls, mark: type) -> dict[str, Any]:
        """Field name -> mark, for the fields that carry a mark of this class."""
        return {
            name: item
            for name, info in cls.model_fields.items()
            for item in info.metadata
            if isinstance(item, mark)
        }

    def semantic(self) -> dict[str, Any]:
        """The part of the slice that can change the result, as plain JSON types.

        A field at its default is left out: so a new key with a neutral default invalidates nobody's results.
        Changing a default changes results, and moves the stage's fingerprint, so its version must be raised.
        """
        left_out = {*self.marked(RuntimeMark), *self.marked(SourceMark)}
        return self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The default of every field that has one, as plain JSON types."""
        fields = {name: field for name, field in cls.model_fields.items() if not field.is_required()}
        filled = cls.model_construct(**{name: field.get_default() for name, field in fields.items()})
        return filled.model_dump(mode="json", include=set(fields), warnings=False)


@dataclass(frozen=True)
class Input:
    """One named input of a stage.

    `many` takes a list of artifacts; `optional` may be absent (`None`). `runtime` gives the reason why
    this input cannot change the result (it is then left out of the key).
    """

    artifact: type[Artifact]
    many: bool = False
    optional: bool = False
    runtime: str | None = None


@dataclass(frozen=True)
class Stage:
    """A declaration. `body` is `module:function`, called as `body(config, **inputs, out=..., report=...)`.

    `version` enters the key: raise it when the stage's results change. `libraries` are the distributions
    whose minor versions enter the key, because they shape the result. `kinds` are tags that Dagster shows.
    """

    name: str
    version: int
    config: type[StageConfig]
    inputs: Mapping[str, Input]
    output: type[Artifact]
    body: str
    description: str
    libraries: tuple[str, ...] = ()
    device: Literal["cpu", "gpu"] = "cpu"
    kinds: tuple[str, ...] = ()
