"""What a stage declares about itself: its config slice, its inputs, its output, where its body lives.

A stage is a function from (its own config, its input artifacts) to one artifact. Everything that the
pipeline needs to know of a stage stands in its `Stage`; nothing here imports anything heavy.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidatorFunctionWrapHandler, field_validator
from pydantic.fields import FieldInfo

from tunemill.resources.protocols import without_credentials
from tunemill.stages.artifacts import Artifact
from tunemill.stages.checks import Check

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class RuntimeMark:
    """The field changes time or place, never the result: it stays out of the key."""


@dataclass(frozen=True)
class SourceMark:
    """The field names a local file or folder, or a list of them: the key holds the contents, not the name.

    With `remote` it may also name an object behind a URL, or a dataset of the Hub (as `hf://datasets/<name>`), of
    which the field `revision` names the branch, tag or commit.
    Names of a field that is `within` another one are seen from there, where that is a local folder; inside of a
    remote place they stay plain names, which enter the key. The field `token` says whether a token is sent. The method
    `needs` says which files of a repository of the Hub count, given the names of all: without it its commit does. Of
    the file `card` only the YAML at its head counts.

    With `fetched` it may also name a model of the Hub, whose files another node fetches: then the field stays unset.
    `is_place` says of a name whether it is a local one; others stay plain names, which enter the key.
    """

    remote: bool = False
    within: str | None = None
    revision: str | None = None
    token: str | None = None
    needs: str | None = None
    card: str | None = None
    fetched: bool = False
    is_place: Callable[[str], bool] | None = None


@dataclass(frozen=True)
class HubMark:
    """The field may name a model of the Hub, which gets its scheme: `hf://models/<name>`.

    A local name stays as it is.
    """


@dataclass(frozen=True)
class CodeMark:
    """The field holds the local Python files behind the dotted name `module.function` in the field `of`.

    They are the module's file and those of the local modules that it imports; None where `of` names no such
    function. The key holds their contents. `of` may be a list of names, and of classes (also `file.py:Class`); the
    names in `known` mean something else.
    """

    of: str
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BehindMark:
    """The field holds the local files and folders behind the names in the field `of`; None where there are none.

    `find(names, folder)` gives their absolute paths, the names being seen from the YAML's folder. The key holds their
    contents.
    """

    of: str
    find: Callable[[Any, Path], list[str] | None]


@dataclass(frozen=True)
class OwnKeysMark:
    """The field holds the values of the keys that the classes named in the field `of` declare for themselves."""

    of: str
    known: frozenset[str] = frozenset()


@dataclass(frozen=True)
class GraphMark:
    """The field is no key of the YAML: the graph sets it, by where the node stands."""


@dataclass(frozen=True)
class GpuMark:
    """`value` means what a GPU can do; `without` says what it means on a machine that has none."""

    value: str
    without: str


@dataclass(frozen=True)
class TextMark:
    """The field is a text, or the path of a file that holds it: then the slice holds the file's text."""


@dataclass(frozen=True)
class EntryMark:
    """The field is read from this node's entry of a list such as `datasets:`."""

    falls_back: bool = False


@dataclass(frozen=True)
class YamlMark:
    """The field is read from another place in the YAML than the top-level key of its name."""

    path: str


# The marks of fields that count by contents.
SOURCE_MARKS = (SourceMark, CodeMark, BehindMark)

# The description of a Runtime field gives the reason after a colon.
Runtime = Annotated[T, RuntimeMark()]
Source = Annotated[T, SourceMark()]
ModelSource = Annotated[T, SourceMark(fetched=True)]
DataSource = Annotated[T, SourceMark(remote=True, revision="revision", needs="counting", card="README.md")]
TextOrFile = Annotated[T, TextMark()]
Entry = Annotated[T, EntryMark()]
EntryOrTop = Annotated[T, EntryMark(falls_back=True)]


class ConflictError(ValueError):
    """Two settings of one slice exclude each other; `keys` are the names of all fields that were compared.

    The first of them that is given is the one at fault; `suggestion` is the value that may have been meant.
    """

    def __init__(self, message: str, *keys: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.keys = keys
        self.suggestion = suggestion


@dataclass(frozen=True)
class Idle:
    """A setting that asks for nothing beside the others, and why: a note for the user, and no part of any key."""

    key: str
    reason: str


@dataclass(frozen=True)
class Fault:
    """Why what the field `key` names on this machine cannot be used: refused before anything runs."""

    key: str
    reason: str


def not_yet(key: str, *values: str) -> Any:
    """A validator of the field `key` for values of Axolotl's that do not run here yet.

    A plain "not one of" would suggest a spelling mistake.
    """

    def refuse(value: object) -> object:
        if isinstance(value, str) and value in values:
            raise ValueError(f"{value} is not supported yet; choose another value, or take the key out")
        return value

    return field_validator(key, mode="before")(refuse)


def listed(names: str | Sequence[str] | None) -> list[str]:
    """What a source field names, as a list."""
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def is_whole(name: str) -> bool:
    """Whether a source's name stands for itself: an absolute path or a URL, not a name inside another source."""
    return "://" in name or Path(name).is_absolute()


# The largest seed that NumPy takes; no count, length or rank comes near.
LARGEST_NUMBER = 2**32 - 1


def _with_signature(function: F) -> F:
    """The function, with what it takes written down: pydantic asks for that once for every field of every model."""
    vars(function)["__signature__"] = signature(function)
    return function


class Settings(BaseModel):
    """A frozen group of settings; unknown names are refused."""

    # A model is built when it is used first: a graph has half of all stages, and groups of keys are never used alone.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="wrap")
    @classmethod
    @_with_signature
    def _numbers_are_numbers(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        """Python takes true for 1, and numbers of any size."""
        read = handler(value)
        if _was_boolean(value, read):
            raise ValueError("must be a number, not true or false")
        for number in read if isinstance(read, list | tuple) else (read,):
            if isinstance(number, int | float) and abs(number) > LARGEST_NUMBER:
                raise ValueError(f"must be a number of at most {LARGEST_NUMBER}")
        return read


def _was_boolean(given: Any, read: Any) -> bool:
    """Whether a number was made of a boolean, here or anywhere inside."""
    if isinstance(given, dict) and isinstance(read, dict):
        return any(_was_boolean(item, read.get(key)) for key, item in given.items())
    if isinstance(given, list | tuple) and isinstance(read, list | tuple):
        return any(_was_boolean(*pair) for pair in zip(given, read, strict=False))
    return isinstance(given, bool) and isinstance(read, int | float) and not isinstance(read, bool)


class StageConfig(Settings):
    """Exactly the keys that one stage reads. `entry_lists` are the lists whose items feed its Entry fields."""

    entry_lists: ClassVar[tuple[str, ...]] = ("datasets", "test_datasets")

    @classmethod
    @cache
    def marked(cls, mark: type) -> dict[str, Any]:
        """Field name -> mark, for the fields that carry a mark of this class."""
        return {
            name: item
            for name, info in cls.model_fields.items()
            for item in info.metadata
            if isinstance(item, mark)
        }

    @classmethod
    def yaml_keys(cls) -> dict[str, FieldInfo]:
        """The fields that are keys of the YAML."""
        marks = (CodeMark, BehindMark, GraphMark, OwnKeysMark)
        own = {name for mark in marks for name in cls.marked(mark)}
        return {name: field for name, field in cls.model_fields.items() if name not in own}

    @classmethod
    @cache
    def top_keys(cls) -> dict[str, str]:
        """The keys that are read of the YAML's top level (or, with dots, below it), each with its field."""
        entries, elsewhere = cls.marked(EntryMark), cls.marked(YamlMark)
        return {
            elsewhere[name].path if name in elsewhere else name: name
            for name in cls.yaml_keys()
            if name not in entries or entries[name].falls_back
        }

    @classmethod
    @cache
    def entry_keys(cls, group: str) -> dict[str, str]:
        """The keys that are read of an entry of the list `group`, each with its field."""
        read = [name for name in cls.yaml_keys() if name in cls.marked(EntryMark)]
        return {name: name for name in read} if group in cls.entry_lists else {}

    @classmethod
    def sources(cls) -> frozenset[str]:
        """The fields whose contents enter the key instead of their names."""
        return frozenset(name for mark in SOURCE_MARKS for name in cls.marked(mark))

    @property
    def ranks(self) -> int:
        """How many processes run the stage's body together, of which the first alone writes; 1 for most stages.

        A config whose stage may run so has a field `processes`, which the graph sets.
        """
        return 1

    @property
    def may_be_spread(self) -> bool:
        """Whether several processes can run the stage's body together, or one of another machine."""
        return False

    def is_set(self, field: str) -> bool:
        """Whether a field asks for more than its default."""
        return bool(getattr(self, field) != type(self).model_fields[field].get_default())

    def idle(self) -> Iterator[Idle]:
        """The settings that ask for nothing beside the others."""
        return iter(())

    def runs_code(self) -> Iterator[Idle]:
        """The settings that let code run which came with a model, and which: a note that nobody should miss."""
        return iter(())

    def depends_on_machine(self) -> Iterator[Idle]:
        """The settings by which results depend on the machine as no key can say, and how: a note."""
        return iter(())

    def unused_inputs(self) -> frozenset[str]:
        """The runtime inputs that nothing would be done with under these settings."""
        return frozenset()

    def deciding(self) -> frozenset[str]:
        """The runtime fields and inputs that do decide the result under these settings: they enter the key."""
        return frozenset()

    def faults(self) -> Iterator[Fault]:
        """What is wrong with the local files and folders that the config names and that are there.

        Goes by names, sizes, first bytes and small files of settings: `check` asks for it, and must be fast.
        """
        return iter(())

    def left_out(self) -> Iterator[Idle]:
        """Local files that are not read because of their names, where nobody has said so: a note.

        Looks at no more than `faults`.
        """
        return iter(())

    def needs_gpu(self) -> Iterator[Idle]:
        """The settings that only a machine with a GPU can honour, and why."""
        return iter(())

    def used_libraries(self) -> tuple[str, ...]:
        """Distributions that shape the result because of these settings, beside those of the stage."""
        return ()

    def used_tools(self) -> Mapping[str, str]:
        """Programs that shape the result because of these settings, and what tells one version from another."""
        return {}

    def written_metrics(self) -> frozenset[str] | None:
        """The figures that a stage which evaluates a model writes under these settings; None where nobody can say."""
        return None

    def semantic(self) -> dict[str, Any]:
        """The part of the slice that can change the result, as plain JSON types.

        Settings that ask for nothing are left out, and so is a field at its default: a new key with a neutral default
        invalidates nobody's results. Changing a default changes results, and moves the stage's fingerprint, so its
        version must be raised.
        """
        runtime = set(self.marked(RuntimeMark)) - self.deciding()
        left_out = {*runtime, *self.sources(), *(item.key for item in self.idle())}
        slice_values = self.model_dump(mode="json", exclude=left_out, exclude_defaults=True)
        plain = {
            field: [without_credentials(name) for name in listed(getattr(self, field)) if not is_whole(name)]
            for field in self.sources() - runtime
        }
        return slice_values | {field: names for field, names in plain.items() if names}

    @classmethod
    def as_keys(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values of a slice, those of keys that a user's class declares by their own names."""
        own = cls.marked(OwnKeysMark)
        found = {name: value for name, value in values.items() if name not in own}
        for name in own:
            found |= values.get(name) or {}
        return found

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
    this input cannot change the result: then it is no part of the key, the lineage and the graph, and is brought up
    to date only when the stage runs. What decides the result, if only by when training stops, is no runtime input:
    where settings make one of it, `StageConfig.deciding` names it.
    """

    artifact: type[Artifact]
    many: bool = False
    optional: bool = False
    runtime: str | None = None


@dataclass(frozen=True)
class Stage:
    """A declaration. `body` is `module:function`, called as `body(config, **inputs, out=..., report=...)`.

    `version` enters the key: raise it when the stage's results change. `libraries` are the distributions
    whose minor versions enter the key, because they shape the result; the config may name more.
    `kinds` are tags that Dagster shows.

    `prepares_data`: `preprocess` runs it, and shows `nothing` of it, or its `figures`. `shows` is a `module:function`
    that gives its first rows as pieces of tokens, for a person to look at. It is called with the data folder, the
    tokenizer of the pipeline (the stage has a tokenizer among its inputs) and how many. `export` is a
    `module:function` that puts a batch of its `rows.arrow` into the columns of Axolotl's prepared datasets.
    `idle_without` says why nothing is asked of the stage in a pipeline that lacks it: its keys are then noted, where
    those of other stages are refused. `tracked`: its steps go to the trackers that the YAML asks for. `resumes_from`
    finds, in what an interrupted attempt has left in its folder of checkpoints, the one that the body goes on from; a
    stage without it begins anew.

    `keeps` says what a stage keeps for itself in a folder of the state folder that outlives its artifacts. It is what
    would come of doing the same work again, such as the answer of a service to a question: it changes no result.

    `accompanies` names inputs that it looks at beside those who need them: where nobody else needs one of them, nobody
    needs what it says of that either.

    `checks` are what is looked at of an artifact when it is there, by its figures alone.

    `traces` is a `module:function` that says where rows of the artifact come from. It is called as `function(config,
    made, rows, **inputs)` with the artifact and numbers of rows in it, from 0, and gives for each a `RowOf` an input,
    or the `RowPlace` in a source. Nothing is stored for it: it finds out again what the body did.
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
    prepares_data: bool = False
    shown_as: Literal["nothing", "figures"] = "figures"
    shows: str | None = None
    export: str | None = None
    idle_without: str | None = None
    tracked: bool = False
    resumes_from: Callable[[Path], Path | None] | None = None
    traces: str | None = None
    keeps: str | None = None
    accompanies: tuple[str, ...] = ()
    checks: tuple[Check, ...] = ()
