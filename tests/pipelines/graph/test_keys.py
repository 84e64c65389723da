"""Every field of every stage moves the key, or is declared to change nothing, with a reason."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from pydantic import BaseModel, ValidationError
from support.samples import samples_of

from tunemill.pipelines.graph.keys import key_document
from tunemill.pipelines.graph.nodes import Node
from tunemill.resources.canonical import hash_document
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.declaration import RuntimeMark, Stage, StageConfig
from tunemill.stages.registry import STAGES

SAMPLES = {stage.name: samples_of(stage) for stage in STAGES}
FIELDS = [(stage, field) for stage in STAGES for field in stage.config.model_fields]


def owner_of(stage: Stage, field: str) -> type:
    """The class that declares the field: of a group of keys, which several stages share."""
    return next(kind for kind in stage.config.__mro__ if field in vars(kind).get("__annotations__", {}))


def each_group_once(fields: list[tuple[Stage, str]]) -> list[Any]:
    """The same as parameters; a field of a group that a stage before has had is left to the slow tests."""
    had: set[tuple[type, str]] = set()
    found = []
    for stage, field in fields:
        group = (owner_of(stage, field), field)
        found.append(pytest.param(stage, field, marks=[pytest.mark.slow] if group in had else []))
        had.add(group)
    return found


def name_of(item: tuple[Stage, str]) -> str:
    return f"{item[0].name}.{item[1]}"


def name(item: Any) -> str:
    return item if isinstance(item, str) else item.name


@pytest.mark.parametrize(("stage", "field"), each_group_once(FIELDS), ids=name)
def test_every_field_moves_the_key_or_is_declared_not_to(stage, field):
    base = smallest(stage, field)
    changed = next(variants(stage, base, field), None)
    if has_one_value(stage.config, field) or field in SAMPLES[stage.name].refused:
        assert changed is None
        return
    assert changed is not None, (
        f"no other valid value was found for {field}; give one in the stage's samples.py"
    )
    moved = key(stage, base) != key(stage, changed)
    if field in stage.config.marked(RuntimeMark):
        description = stage.config.model_fields[field].description or ""
        assert ": " in description, f"{field} is Runtime without a reason"
        assert not moved
    elif field in SAMPLES[stage.name].idle:
        assert not moved and field in {one.key for one in changed.idle()}
    elif field in stage.config.sources():
        assert not moved, "a name is not contents"
        assert key(stage, base) != key(stage, base, sources={field: [{"kind": "file", "sha256": "x"}]})
    else:
        assert moved


def test_either_method_moves_the_key():
    pairs = PreferencesConfig(path="/rows.jsonl", type=None, rl="dpo")
    reward = PreferencesConfig(path="/rows.jsonl", type="bradley_terry.llama3", reward_model=True)
    assert key(PREFERENCES, pairs) != key(PREFERENCES, reward)


@pytest.mark.parametrize("stage", STAGES, ids=name)
def test_inputs_version_and_libraries_move_the_key(stage):
    base = smallest(stage)
    keys = {key(stage, base)}
    for input_name in stage.inputs:
        keys.add(key(stage, base, inputs={input_name: ["d"]}))
        keys.add(key(stage, base, inputs={input_name: ["d", "e"]}))
        keys.add(key(stage, base, inputs={input_name: ["e", "d"]}))
    assert len(keys) == 1 + 3 * len(stage.inputs)
    document = key_document(node(stage, base), {}, {})
    assert hash_document({**document, "version": stage.version + 1}) not in keys
    assert hash_document({**document, "libraries": {**document["libraries"], "x": "1.0"}}) not in keys


@pytest.mark.parametrize("stage", STAGES, ids=name)
def test_every_field_is_described(stage):
    for field, info in stage.config.model_fields.items():
        assert info.description, f"{stage.name}.{field}"


def node(stage, config) -> Node:
    return Node(stage.name, stage, config, {}, {})


def key(stage, config, inputs=None, sources=None) -> str:
    return hash_document(key_document(node(stage, config), inputs or {}, sources or {}))


def smallest(stage: Stage, field: str = "") -> StageConfig:
    """The smallest valid config in which the field makes sense."""
    samples = SAMPLES[stage.name]
    given = {**samples.smallest, **samples.beside.get(field, {})}
    return stage.config.model_validate({name: value for name, value in given.items() if value is not None})


def has_one_value(config: type[StageConfig], field: str) -> bool:
    """A field whose type allows one value only."""
    annotation = config.model_fields[field].annotation
    return annotation is type(None) or (get_origin(annotation) is Literal and len(get_args(annotation)) == 1)


def variants(stage: Stage, base: StageConfig, field: str) -> Iterator[StageConfig]:
    """Valid configs that differ from the base in one field (and in what that field cannot do without)."""
    samples, config = SAMPLES[stage.name], stage.config
    given = {name: getattr(base, name) for name in base.model_fields_set}
    before = getattr(base, field)
    for value in [*samples.values.get(field, []), *values(config.model_fields[field].annotation)]:
        for more in ({}, samples.smallest):
            try:
                changed = config.model_validate({**more, **given, field: value})
            except ValidationError:
                continue
            if getattr(changed, field) != before:
                yield changed


SIMPLE: dict[Any, list[Any]] = {
    bool: [True, False],
    int: [1, 7, 64],
    float: [0.5, 0.25, 3.0],
    str: ["a", "user", "linear"],
    type(None): [],
    Any: ["x", 1],
}


def values(annotation: Any) -> Iterator[Any]:
    """Values to try for a type."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        for item in arguments:
            yield from values(item)
    elif origin is Annotated:
        yield from values(arguments[0])
    elif origin is Literal:
        yield from arguments
    elif origin in (list, tuple):
        yield from ([item] for item in values(arguments[0]))
    elif origin is dict:
        yield from ({next(values(arguments[0])): item} for item in values(arguments[1]))
    elif annotation in SIMPLE:
        yield from SIMPLE[annotation]
    else:
        assert issubclass(annotation, BaseModel)
        for field, info in annotation.model_fields.items():
            yield from ({field: item} for item in values(info.annotation))


WITH_DEFAULT = [
    (stage, field)
    for stage, field in FIELDS
    # What the smallest config sets to something else, or cannot do without, has no default to write out.
    if not stage.config.model_fields[field].is_required()
    and field not in smallest(stage, field).model_fields_set
]


@pytest.mark.parametrize(("stage", "field"), each_group_once(WITH_DEFAULT), ids=name)
def test_a_key_at_its_default_is_as_good_as_unset(stage, field):
    base = smallest(stage, field)
    given = base.model_dump(exclude_unset=True)
    spelled = stage.config.model_validate({**given, field: stage.config.defaults()[field]})
    assert field in spelled.model_fields_set - base.model_fields_set
    assert key(stage, spelled) == key(stage, base)


def test_nearly_every_field_has_a_default_to_write_out():
    assert len(WITH_DEFAULT) > 0.9 * len(FIELDS), set(map(name_of, FIELDS)) - set(map(name_of, WITH_DEFAULT))
