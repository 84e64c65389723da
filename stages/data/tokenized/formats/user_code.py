"""`type: my_module.function`: rows made by a user's own Python.

`load` and `load_*` make a prompt strategy, an object whose `tokenize_prompt` makes tokens of a row. Any other function
makes a transform, which turns a row into one of another format.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RowValue
from tunemill.stages.data.conversations.user_config import UserConfig
from tunemill.stages.data.conversations.user_functions import map_function, row_of
from tunemill.stages.data.conversations.user_modules import (
    LOADER,
    UserFailures,
    load_function,
    module_and_function,
    parameters,
)
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.formats.chat_template import chat_template
from tunemill.stages.data.tokenized.formats.completion import completion
from tunemill.stages.data.tokenized.formats.input_output import input_output
from tunemill.stages.data.tokenized.formats.instruct import instruct
from tunemill.stages.data.tokenized.formats.pretokenized import pretokenized
from tunemill.stages.errors import SettingError

Make = Callable[[TokenizedConfig, Kit], Format]


@dataclass(frozen=True)
class Shape:
    """A format that a transformed row may be of, and the fields that tell."""

    fields: frozenset[str]
    kind: str
    make: Make


def shapes(config: TokenizedConfig) -> tuple[Shape, ...]:
    """The formats of transformed rows; where a row fits several, the first one counts."""
    return (
        Shape(frozenset({"input_ids"}), "", pretokenized),
        Shape(frozenset({config.field_messages}), "chat_template", chat_template),
        Shape(frozenset({"segments"}), "input_output", input_output),
        Shape(frozenset({config.field or "text"}), "completion", completion),
        Shape(frozenset({"instruction", "output"}), "alpaca", instruct),
    )


def user_code(config: TokenizedConfig, kit: Kit) -> Format:
    """Raises SettingError where the code does not load or does not make what it must."""
    name, files = str(config.type), config.type_code
    assert files is not None
    function = load_function("type", name, files)
    cfg = UserConfig("tokenized", config)
    called = module_and_function(name, files[0])[1]
    with UserFailures(f"type: {name}", files, SettingError):
        if called == LOADER or called.startswith(f"{LOADER}_"):
            extra = {"ds_cfg": cfg} if "ds_cfg" in parameters(function) else {}
            made = function(kit.tokenizer.with_transformers(), cfg, **extra)
        else:
            made = function(cfg)
    if called == LOADER or called.startswith(f"{LOADER}_"):
        return strategy(config, kit, made)
    return transform(config, kit, made)


def strategy(config: TokenizedConfig, kit: Kit, made: Any) -> Format:
    """Rows that the strategy's `tokenize_prompt` makes tokens of."""
    name, files = f"type: {config.type}", config.type_code or []
    if not callable(getattr(made, "tokenize_prompt", None)):
        raise SettingError(f"{name} must return an object with a method tokenize_prompt, not {made!r:.60}")
    for refused in ("supports_batched", "filter_rows"):
        if getattr(made, refused, None):
            raise SettingError(
                f"{name}: {refused} of a prompt strategy is not supported; rows are given one by one"
            )
    tokens = pretokenized(config, kit)

    def read(row: RowValue) -> Example:
        with UserFailures(name, files, BadRowError):
            result = made.tokenize_prompt(row)
        made_row = row_of(name, result)
        missing = {"input_ids", "labels"} - set(made_row)
        if missing:
            raise BadRowError(f"{name} returned no {' and no '.join(sorted(missing))}")
        return tokens.read(made_row)

    return Format(read)


def transform(config: TokenizedConfig, kit: Kit, made: Any) -> Format:
    """Rows that a map function makes; what it returns decides on their format, else what the row has besides."""
    name, files = f"type: {config.type}", config.type_code or []
    mapping = map_function(name, made)
    extra = (
        {"tokenizer": kit.tokenizer.with_transformers()}
        if "tokenizer" in parameters(mapping.function)
        else {}
    )
    known = shapes(config)
    formats: dict[Shape, Format] = {}

    def format_of(shape: Shape) -> Format:
        if shape not in formats:
            formats[shape] = shape.make(config.model_copy(update={"type": shape.kind}), kit)
        return formats[shape]

    def read(row: RowValue) -> Example:
        before = dict(row)
        with UserFailures(name, files, BadRowError):
            result = mapping.function(row, **extra)
        returned = row_of(name, result)
        kept = (
            {} if mapping.removed is None else {k: v for k, v in before.items() if k not in mapping.removed}
        )
        merged = kept | returned
        for fields in (returned, merged):
            for shape in known:
                if shape.fields <= set(fields):
                    return format_of(shape).read(merged)
        named = ", ".join(" and ".join(sorted(shape.fields)) for shape in known)
        raise BadRowError(f"{name} made a row with {sorted(merged)}; it must have one of: {named}")

    ends = (
        chat_template(config.model_copy(update={"type": "chat_template"}), kit).ends
        if kit.template or kit.render_tokens
        else None
    )
    return Format(read, ends=ends)
