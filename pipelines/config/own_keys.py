"""Keys that a user's own class declares: read from its source as text, so that `check` runs no line of it.

The class says in `get_input_args` which pydantic model holds them: `return "module.Args"`, or `return Args`. Fields
of plain types, with defaults and constraints that are written out and go with them, are checked here; of others only
the name is known, and the model itself checks them when the stage runs.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import pydantic
from pydantic import Field, PydanticUserError, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import SchemaError

from tunemill.pipelines.config.user_code import code_files
from tunemill.resources.local import refusal
from tunemill.stages.declaration import StageConfig
from tunemill.stages.own_classes import class_in, dotted, methods_of, module_tree, with_bases

DECLARES = "get_input_args"
NUMBERS = ("PositiveInt", "NonNegativeInt", "PositiveFloat", "NonNegativeFloat")
TYPES: Mapping[str, Any] = {
    "bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict, "List": list, "Dict": dict,
    "Any": Any, "Literal": Literal, "Optional": Optional, "Union": Union, "None": None,
    **{name: getattr(pydantic, name) for name in NUMBERS},
}  # fmt: skip
ROOTS = {"BaseModel", "Settings", "object"}
NUMERIC = frozenset({"gt", "ge", "lt", "le", "multiple_of"})
LENGTHS = frozenset({"min_length", "max_length"})
# Plain type -> the constraints of `Field` that go with it.
CONSTRAINTS: Mapping[Any, frozenset[str]] = {
    int: NUMERIC, float: NUMERIC, str: LENGTHS | {"pattern"}, list: LENGTHS, dict: LENGTHS,
}  # fmt: skip
UNIONS = (Union, UnionType)


class UnreadableError(ValueError):
    """The keys of a class cannot be told from its source."""


@dataclass(frozen=True)
class Declared:
    """The keys that the classes of one list declare. `by` says which class; `wrong` what is wrong with which of them.

    `model` holds all keys as one config.
    """

    model: type[StageConfig]
    by: dict[str, str]
    wrong: list[tuple[str, str]] = field(default_factory=list)


def declared_by(names: Any, known: frozenset[str], folder: Path) -> Declared:
    """The keys of the classes that a key of the YAML names; `known` are names that mean something else."""
    fields: dict[str, Any] = {}
    by: dict[str, str] = {}
    wrong: list[tuple[str, str]] = []
    for name in own_names(names, known):
        try:
            found = _keys_of(name, folder)
        except UnreadableError as error:
            wrong.append((name, str(error)))
            continue
        twice = sorted(found.keys() & fields.keys())
        wrong += [(name, f"declares {key}, and so does {by[key]}; rename one of them") for key in twice]
        fields |= found
        by |= dict.fromkeys(found, name)
    return Declared(create_model("OwnKeys", __base__=StageConfig, **fields), by, wrong)


def own_names(names: Any, known: frozenset[str]) -> list[str]:
    """The names in the list that may be those of classes of one's own."""
    listed = names if isinstance(names, list) else [names]
    return [name for name in listed if isinstance(name, str) and name not in known]


def values_of(names: Any, known: frozenset[str], data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The values that a YAML gives these keys, without defaults; none where one of them is wrong."""
    declared = declared_by(names, known, folder)
    given = {key: data[key] for key in declared.by if key in data}
    try:
        return declared.model.model_validate(given).model_dump(mode="json", exclude_defaults=True)
    except ValidationError:
        return {}


def all_code_files(names: Any, known: frozenset[str], folder: Path) -> list[str] | None:
    """The files behind a name or a list of names, those of the models of their keys too; None where there are none."""
    found: list[str] = []
    for name in own_names(names, known):
        found += code_files(dotted(name), folder) or []
        try:
            model = _model_of(name, folder)
        except UnreadableError:
            continue
        found += (code_files(model, folder) or []) if model else []
    return list(dict.fromkeys(found)) or None


def _model_of(name: str, folder: Path) -> str | None:
    """The dotted name of the model that a class gives in `get_input_args`; None where it declares no keys."""
    tree = _tree_of(dotted(name), folder)
    found = None if tree is None else class_in(tree, dotted(name).rpartition(".")[2])
    method = None if tree is None or found is None else methods_of(with_bases(tree, found)).get(DECLARES)
    if tree is None or method is None:
        return None
    given = [node.value for node in ast.walk(method) if isinstance(node, ast.Return)]
    match given:
        case [] | [None] | [ast.Constant(value=None)]:
            return None
        case [ast.Constant(value=str(model))] if "." in model:
            return model
        case [ast.Name(id=model)] if class_in(tree, model) is not None:
            return f"{dotted(name).rpartition('.')[0]}.{model}"
        case [ast.Name(id=model)] if (module := _imported_from(tree, model)) is not None:
            return module
    raise UnreadableError(
        f'{DECLARES} must end in one return, of a class or of its name in quotes ("module.Args"), so that keys are '
        f"known before anything runs"
    )


def _imported_from(tree: ast.Module, name: str) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return f"{node.module}.{alias.name}"
    return None


def _tree_of(name: str, folder: Path) -> ast.Module | None:
    """The module in which the class `module.Class` stands; None where it is not there or cannot be read."""
    files = code_files(name, folder)
    if files is None or refusal(files[0]):
        return None
    try:
        return module_tree(Path(files[0]))
    except ValueError:
        # Said of the class itself.
        return None


def _keys_of(name: str, folder: Path) -> dict[str, Any]:
    """Key -> type and default, as pydantic takes them."""
    model = _model_of(name, folder)
    if model is None:
        return {}
    tree, wanted = _tree_of(model, folder), model.rpartition(".")[2]
    found = None if tree is None else class_in(tree, wanted)
    if tree is None or found is None:
        raise UnreadableError(f"{DECLARES} names {model}, and there is no such class beside the YAML")
    classes = with_bases(tree, found)
    bases = {
        base.id if isinstance(base, ast.Name) else ast.unparse(base) for one in classes for base in one.bases
    }
    foreign = sorted(
        base for base in bases if base.rpartition(".")[2] not in {*ROOTS, *(c.name for c in classes)}
    )
    if foreign:
        raise UnreadableError(
            f"{model} inherits from {foreign[0]}, whose fields cannot be read; write them out in a BaseModel"
        )
    keys: dict[str, Any] = {}
    for one in reversed(classes):
        keys |= dict(_fields_of(one))
    return keys


def _fields_of(found: ast.ClassDef) -> Iterator[tuple[str, Any]]:
    for node in found.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        key = node.target.id
        if key.startswith("_") or key == "model_config" or "ClassVar" in ast.unparse(node.annotation):
            continue
        kind = _type_of(node.annotation)
        yield key, _buildable(kind, _default_of(node.value, _fitting(kind)))


def _fitting(kind: Any) -> frozenset[str]:
    """The constraints that can be applied to every value of a type."""
    parts = (
        [part for part in get_args(kind) if part is not type(None)] if get_origin(kind) in UNIONS else [kind]
    )
    if len(parts) != 1:
        return frozenset()
    plain = get_args(parts[0])[0] if get_origin(parts[0]) is Annotated else get_origin(parts[0]) or parts[0]
    return CONSTRAINTS.get(plain, frozenset())


def _buildable(kind: Any, default: Any) -> tuple[Any, Any]:
    """Type and default, or only that there is one where pydantic makes no field of them."""
    try:
        create_model("OneKey", key=(kind, default))
    except (TypeError, AssertionError, SchemaError, PydanticUserError):
        return Any, ... if default is ... or (
            isinstance(default, FieldInfo) and default.is_required()
        ) else None
    return kind, default


def _type_of(annotation: ast.expr) -> Any:
    """A type that is made of the plain ones; Any for every other one."""
    try:
        return _read_type(annotation)
    except (KeyError, TypeError, ValueError, SyntaxError):
        return Any


def _read_type(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=None):
            return None
        case ast.Constant(value=str(text)):
            return _read_type(ast.parse(text, mode="eval").body)
        case ast.Name(id=name):
            return TYPES[name]
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return Union[_read_type(left), _read_type(right)]  # noqa: UP007 - of types, not of their names
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            items = ast.literal_eval(inner)
            return Literal[items]
        case ast.Subscript(value=outer, slice=ast.Tuple(elts=parts)):
            return _read_type(outer)[tuple(map(_read_type, parts))]
        case ast.Subscript(value=outer, slice=inner):
            return _read_type(outer)[_read_type(inner)]
    raise ValueError(ast.unparse(node))


def _default_of(value: ast.expr | None, constraints: frozenset[str]) -> Any:
    """The default as written; an unset key where it cannot be read; Ellipsis where the key must be given."""
    if value is None:
        return ...
    if isinstance(value, ast.Call) and ast.unparse(value.func).rpartition(".")[2] == "Field":
        return _field_of(value, constraints)
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError):
        return Field(default=None)


def _field_of(call: ast.Call, constraints: frozenset[str]) -> FieldInfo:
    written: dict[str, Any] = {}
    parts: Sequence[tuple[str | None, ast.expr]] = [
        *(("default", one) for one in call.args[:1]),
        *((one.arg, one.value) for one in call.keywords),
    ]
    for name, value in parts:
        if name == "default_factory":
            written["default"] = None
        elif name == "default" or name in constraints or name == "description":
            try:
                written[name] = ast.literal_eval(value)
            except (ValueError, TypeError):
                written |= {"default": None} if name == "default" else {}
    found: FieldInfo = Field(**written)
    return found
