"""What rows that a format cannot read look like, as a sentence: which keys would read them. No heavy imports."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tunemill.stages.data.rows.shapes import GOALS, SHAPE_KEYS, Row, Shape, shapes_of
from tunemill.stages.data.rows.spelled import spelled, spelled_keys
from tunemill.stages.declaration import EntryMark, StageConfig

Keys = Mapping[str, Any]
# The keys with which the real format reads all of the rows, if it does: those given, and perhaps one more.
Tried = Callable[[Keys, Sequence[Row]], Keys | None]
TEMPLATE_KEYS = ("chat_template", "chat_template_jinja", "chat_template_kwargs")
# Also tried, for conversations where the tokenizer has no template.
MORE_KEYS: tuple[Keys, ...] = ({}, {"chat_template": "chatml"})


@dataclass(frozen=True)
class Reads:
    """What a stage reads: `goals` of GOALS, and how to try keys on rows. `without` is what keeps fine-tuning away.

    With `first`, what the stage reads goes before what the rows might be for another one.
    """

    goals: Sequence[str]
    tried: Tried
    without: str = ""
    first: bool = False


def likeness(config: StageConfig, rows: Sequence[Row], all_bad: bool, reads: Reads) -> str | None:
    """What the rows, or else the first of them, look like; None where that cannot be told.

    `all_bad`: no row of the dataset can be read, so the keys are wrong, not just some rows.
    """
    for some in (rows, rows[:1]):
        shapes = shapes_of(some, guesses=all_bad)
        if reads.first:
            shapes.sort(key=lambda shape: shape.goal not in reads.goals)
        is_known = False
        for shape in shapes:
            keys: Keys | None = shape.keys_for(some)
            is_own = shape.goal in reads.goals
            if keys is not None and is_own:
                is_known = True
                keys = reads.tried(keys, some) if differs(config, keys) else None
            elif is_known and reads.first:
                # They are what the stage reads, and something else is wrong with them.
                keys = None
            if keys is not None:
                is_many = len(some) > 1
                named = (
                    "these rows" if is_many else "this row" if len(rows) == 1 else "the first of these rows"
                )
                return sentence(
                    named, spelled_keys(keys) + removals(config, keys), shape, is_own, reads.without
                )
    return None


def sentence(rows: str, keys: str, shape: Shape, is_own: bool, without: str) -> str:
    """What `rows` look like and which keys read them, both as text."""
    is_one = rows != "these rows"
    if is_own:
        plain = keys.replace("no `type`", "rows that take no `type`", 1)
        return f"{rows} {'looks' if is_one else 'look'} like {plain}"
    goal = GOALS[shape.goal]
    kind = f"{rows} {'is one of the' if is_one else 'are'} {goal.rows}"
    settings = " and ".join(f"`{key}: {spelled(value)}`" for key, value in goal.settings.items())
    if not settings:
        return f"{kind}: {without}, {keys} trains on them"
    return f"{kind}: they train with {settings} and {keys}"


def differs(config: StageConfig, keys: Keys) -> bool:
    """Whether keys ask for another way to read rows than the config does."""
    fields = type(config).model_fields
    present = {key: getattr(config, key) for key in SHAPE_KEYS if key in fields}
    return any(keys.get(key, fields[key].get_default()) != _plain(value) for key, value in present.items())


def _plain(value: Any) -> Any:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def removals(config: StageConfig, keys: Keys) -> str:
    """The keys of the config that other keys do not go with, as the end of a sentence."""
    given = [key for key in SHAPE_KEYS if key in type(config).model_fields and config.is_set(key)]
    extra = [f"`{key}`" for key in given if key not in keys and key != "type"]
    return f", without {' and '.join(extra)}" if extra else ""


def settings_to_try(config: StageConfig, keys: Keys) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Keys of an entry, alone and with a chat template, each with the settings of a config that has them.

    What the config reads from the top level stays, and so does its chat template where the keys need one.
    """
    entry = config.marked(EntryMark)
    kept = {name: getattr(config, name) for name in config.model_fields_set if name not in entry}
    if str(keys.get("type")).startswith("chat_template"):
        kept |= {name: getattr(config, name) for name in TEMPLATE_KEYS if name in config.model_fields_set}
    for more in MORE_KEYS:
        yield {**keys, **more}, {**kept, **keys, **more}
