"""Every key that the pipeline knows: the union of the config classes of the stages and of the graph."""

import types
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from tunemill.pipelines.config.dataset_entries import DATA, EVALUATIONS, READ_AS
from tunemill.pipelines.config.graph_config import ENTRY_LISTS, GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.pipelines.config.use_config import UseConfig
from tunemill.stages.choices import nearest
from tunemill.stages.declaration import StageConfig
from tunemill.stages.errors import UserError


class KeyTree(dict[str, "KeyTree | None"]):
    """Known key -> the keys below it; None below means that anything may stand there."""

    def merge(self, path: tuple[str, ...], below: "KeyTree | None") -> None:
        """Add a key; a list of known keys wins over `anything`."""
        head, *rest = path
        if rest:
            branch = self.get(head) or KeyTree()
            branch.merge(tuple(rest), below)
            self[head] = branch
        elif below is not None:
            branch = self.get(head) or KeyTree()
            for name, item in below.items():
                branch.merge((name,), item)
            self[head] = branch
        else:
            self.setdefault(head, None)


Configs = tuple[type[StageConfig], ...]


@cache
def config_classes() -> Configs:
    """The config class of the graph, of trackers and of every stage."""
    from tunemill.stages.registry import STAGES

    return with_shared(stage.config for stage in STAGES)


def with_shared(configs: Iterable[type[StageConfig]]) -> Configs:
    """These config classes and those of every pipeline, each once."""
    return tuple(dict.fromkeys((GraphConfig, TrackerConfig, UseConfig, *configs)))


def key_tree() -> KeyTree:
    """Every supported key."""
    return tree_of(config_classes())


@cache
def tree_of(configs: Configs) -> KeyTree:
    """Every key that one of these reads."""
    tree = KeyTree()
    for config in configs:
        for key, name in config.top_keys().items():
            tree.merge(tuple(key.split(".")), keys_below(config.model_fields[name].annotation))
        for group in config.entry_lists:
            for key, name in config.entry_keys(group).items():
                tree.merge((group, key), keys_below(config.model_fields[name].annotation))
    tree.merge((*map(str, EVALUATIONS), DATA), tree[READ_AS])
    return tree


@cache
def grouping_keys(configs: Configs) -> frozenset[KeyPath]:
    """What is no key of these but holds some: `pipeline`, and `pipeline.evaluation`."""
    dotted = [key.split(".") for config in configs for key in config.top_keys()]
    return frozenset(tuple(parts[:length]) for parts in dotted for length in range(1, len(parts)))


def keys_below(annotation: Any) -> KeyTree | None:
    """The keys that a field's type allows below it; None where it says nothing about them."""
    models = list(_models(annotation))
    if not models:
        return None
    tree = KeyTree()
    for model in models:
        for name, field in model.model_fields.items():
            tree.merge((name,), keys_below(field.annotation))
    return tree


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, list, tuple):
        for item in get_args(annotation):
            yield from _models(item)
    elif origin is Annotated:
        yield from _models(get_args(annotation)[0])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


@cache
def axolotl_keys() -> frozenset[str]:
    """The key paths of Axolotl's own configuration, spelled `datasets[].type` and `bnb_config_kwargs.*`."""
    return _names("axolotl_keys.txt")


@cache
def off_when_false() -> frozenset[str]:
    """Keys of Axolotl whose `false` asks for nothing: leaving the feature out honours it."""
    return _names("axolotl_off_when_false.txt")


def _names(file: str) -> frozenset[str]:
    text = resources.files("tunemill.pipelines.config").joinpath(file).read_text()
    return frozenset(line for line in text.splitlines() if line and not line.startswith("#"))


def json_schema() -> dict[str, Any]:
    """A JSON schema of the whole YAML, for editors."""
    definitions: dict[str, Any] = {}
    top: dict[str, Any] = {}
    items: dict[str, dict[str, Any]] = {group: {} for group in ENTRY_LISTS}
    grouped: dict[str, dict[str, Any]] = {}
    required: list[str] = []
    for config in config_classes():
        schema = config.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        for group in config.entry_lists:
            for key, name in config.entry_keys(group).items():
                items[group].setdefault(key, schema["properties"][name])
        for key, name in config.top_keys().items():
            group, _, last = key.rpartition(".")
            place = grouped.setdefault(group, {}) if group else top
            said = schema["properties"][name]
            # The graph looks into some blocks without naming what may stand in them.
            if last not in place or ("$ref" in str(said) and "$ref" not in str(place[last])):
                place[last] = said
        needed = (key for key, name in config.top_keys().items() if name in schema.get("required", []))
        required += [key for key in needed if key not in required]
    for group, properties in items.items():
        item = {"type": "object", "properties": properties, "additionalProperties": False}
        top[group] = {**top[group], "items": item}
    # The deepest first: they stand in those around them.
    for group in sorted(grouped, key=lambda group: -group.count(".")):
        around, _, last = group.rpartition(".")
        place = grouped.setdefault(around, {}) if around else top
        # Of a block that one config reads whole, another one may read a part.
        if last in place and "$ref" in str(place[last]):
            continue
        place[last] = {"type": "object", "properties": grouped[group], "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tunemill pipeline",
        "type": "object",
        "properties": top,
        "required": required,
        "additionalProperties": False,
        "$defs": definitions,
    }


def field_schema(field: str) -> dict[str, Any]:
    """The part of the schema that is of one key, with the definitions that it names.

    `quantization.weight_dtype` and `datasets[].type` lead deeper. Raises UserError with the nearest key where there is
    none.
    """
    whole = _whole()
    definitions, found = whole["$defs"], whole
    for name in field.replace("[]", "").replace("-", "_").split("."):
        below = dict(_below(found, definitions))
        if name not in below:
            near = nearest(name, list(below))
            meant = f"; did you mean {near[0]}?" if near else ". `tunemill schema --markdown` lists the keys"
            raise UserError(f"{field}: there is no key {name} here{meant}")
        found = below[name]
    needed = _named_in(found, definitions)
    return {**found, **({"$defs": {name: definitions[name] for name in sorted(needed)}} if needed else {})}


@cache
def _whole() -> dict[str, Any]:
    return json_schema()


def _parts(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A schema and all that it may stand for."""
    yield schema
    others = [definitions[schema["$ref"].rpartition("/")[2]]] if "$ref" in schema else []
    others += [*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])]
    others += [schema["items"]] if isinstance(schema.get("items"), dict) else []
    for other in others:
        yield from _parts(other, definitions)


def _below(schema: dict[str, Any], definitions: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for part in _parts(schema, definitions):
        yield from part.get("properties", {}).items()


def _named_in(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """The definitions that a schema names, and those that these name."""
    found: set[str] = set()
    pending = [schema]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += item
        elif isinstance(item, dict):
            name = str(item.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found.add(name)
                pending.append(definitions[name])
            pending += item.values()
    return found
