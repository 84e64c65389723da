"""Of which kind the first rows of files are: the keys that read them, and what they are called."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.pipelines.commands.first_rows import FirstRows
from tunemill.stages.data.rows.shapes import GOALS, SHAPES, Goal, Messages, Row, Shape, role_of, shapes_of
from tunemill.stages.data.rows.spelled import spelled_keys
from tunemill.stages.errors import SourceError

# Rows whose shapes are considered, and the share of rows that may be of another one.
TRIED_ROWS = 20
STRAY_SHARE = 0.1
# A token of most texts and tokenizers has more bytes.
BYTES_PER_TOKEN = 3
# Fields that some formats read beside those of a shape.
FURTHER_FIELDS = ("system", "tools", "input", "context", "choices")
SHOWN_FIELDS = 20
KNOWN_KINDS = """Known are, among others:
  type: chat_template           messages: a list of {role, content}; conversations: of {from, value}
  type: alpaca                  instruction, output, and perhaps input
  type: alpaca_chat.load_qa     question, answer
  type: {field_instruction: prompt, field_output: completion}: any two fields
  type: input_output            segments: a list of {label, text}
  type: completion              text, or another field that field: names
  no type                       input_ids, and perhaps labels and attention_mask
  type: chat_template.default   messages or prompt, chosen, rejected: pairs, for rl: orpo
Rename the fields, or write the YAML by hand with one of these types and the names of your fields."""


@dataclass(frozen=True)
class Kind:
    """Rows of one file. `keys` read them; `longest` is how long the longest one is, in tokens, roughly.

    `strays` are rows looked at that cannot be read so, with a place and a reason for the first.
    """

    path: Path
    shape: Shape
    keys: Mapping[str, Any]
    longest: int
    looked: int
    count: int | None
    strays: int
    first_stray: str
    said: str

    @property
    def goal(self) -> Goal:
        """What the rows are for."""
        return GOALS[self.shape.goal]


def kind_of_rows(name: str, seen: FirstRows) -> Kind:
    """Of which kind a file's rows are.

    Raises SourceError where that cannot be told, where they are of several kinds, and where nothing would be trained.
    """
    shape = _most_common(seen.values)
    if shape is None:
        raise SourceError(_unknown(name, seen))
    rows = [row for row in seen.values if shape.fits(row)]
    strays = seen.looked - len(rows)
    if strays > STRAY_SHARE * seen.looked:
        raise SourceError(
            f"{name}: {len(rows)} of the {seen.looked} rows looked at could be read by {spelled_keys(shape.keys)}, and "
            f"{strays} not ({_stray(shape, seen)}). Rows of different kinds need files of their own"
        )
    keys = shape.keys_for(rows)
    roles = shape.roles(rows)
    if shape.goal == "tokens" and roles and "assistant" not in map(role_of, roles):
        raise SourceError(
            f"{name}: none of the roles {', '.join(roles)} is known as an assistant's, whose messages are trained on; "
            f"write the YAML by hand, with {spelled_keys(keys)} and the names of the roles under roles:"
        )
    longest = max(_tokens(shape, row) for row in rows)
    stray = _stray(shape, seen) if strays else ""
    said = _said(shape, roles, seen)
    return Kind(seen.path, shape, keys, longest, seen.looked, seen.count, strays, stray, said)


def _most_common(rows: Sequence[Row]) -> Shape | None:
    """The shape that most rows have, of those that the first ones have; of several the most likely one."""
    found: list[Shape] = []
    for row in rows[:TRIED_ROWS]:
        found += [shape for shape in shapes_of([row]) if shape not in found]
    found.sort(key=lambda shape: SHAPES.index(shape) if shape in SHAPES else len(SHAPES))
    return max(found, key=lambda shape: sum(map(shape.fits, rows)), default=None)


def _stray(shape: Shape, seen: FirstRows) -> str:
    """The first row that is not of the shape."""
    if seen.problems:
        place, reason = seen.problems[0]
        return f"first {place}: {reason}"
    row = next(row for row in seen.values if not shape.fits(row))
    return f"such as one with the fields {_fields(row)}"


def _fields(row: Row) -> str:
    names = [f"`{name}`" for name in list(row)[:SHOWN_FIELDS]]
    more = [f"{len(row) - SHOWN_FIELDS} more"] if len(row) > SHOWN_FIELDS else []
    return ", ".join([*names, *more]) or "none"


def _tokens(shape: Shape, row: Row) -> int:
    """How long a row is in tokens, roughly: by the bytes of what is read of it."""
    if "input_ids" in shape.fields:
        return len(row["input_ids"])
    read = {name: value for name, value in row.items() if name in (*shape.fields, *FURTHER_FIELDS)}
    return len(json.dumps(read, ensure_ascii=False).encode("utf-8")) // BYTES_PER_TOKEN


def _said(shape: Shape, roles: Sequence[str], seen: FirstRows) -> str:
    """What a file holds, in words: `2,000 rows of `messages` with roles system, user, assistant`."""
    count = f"more than {seen.looked:,}" if seen.count is None else f"{seen.count:,}"
    unit = "row" if seen.count == 1 else "rows"
    present = {name for row in seen.values for name in row}
    fields = [*shape.fields, *(name for name in FURTHER_FIELDS if name in present - set(shape.fields))]
    if any(isinstance(kind, Messages) for kind in shape.fields.values()) and roles:
        return f"{count} {unit} of {_listed(shape.fields)} with roles {', '.join(roles)}"
    return f"{count} {unit} of {_listed(fields)}"


def _listed(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _unknown(name: str, seen: FirstRows) -> str:
    """What was seen of rows of no known shape, and which shapes are known."""
    fields = _fields(seen.values[0])
    return f"{name}: the kind of its rows cannot be told from the fields {fields}. {KNOWN_KINDS}"
