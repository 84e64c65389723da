"""What is wrong with a value, in our words: which rule it breaks, what was given, how to mend it.

Every kind of error that pydantic knows comes through here, so that none of its own phrases reaches a user.
"""

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import ErrorDetails

from tunemill.pipelines.config.problems import given as given_as
from tunemill.stages.choices import ChoiceError, nearest
from tunemill.stages.choices import rule as choice_rule

MAPPING = "a mapping of keys to values"
WHOLE = "a whole number"
BOOLEAN = "true or false"
Context = Mapping[str, Any]
# Kind of error -> what the value must be, after "must be".
RULES: dict[str, str | Callable[[Context], str]] = {
    "none_required": "null",
    "bool_type": BOOLEAN,
    "bool_parsing": BOOLEAN,
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "int_parsing_size": "a whole number that 64 bits hold",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "decimal_type": "a number",
    "decimal_parsing": "a number",
    "greater_than": lambda of: f"above {_number(of['gt'])}",
    "greater_than_equal": lambda of: f"at least {_number(of['ge'])}",
    "less_than": lambda of: f"below {_number(of['lt'])}",
    "less_than_equal": lambda of: f"at most {_number(of['le'])}",
    "multiple_of": lambda of: f"a multiple of {_number(of['multiple_of'])}",
    "string_type": "text",
    "string_unicode": "text",
    "string_not_ascii": "text of ASCII characters only",
    "string_too_short": lambda of: _sized("text", "at least", of["min_length"], "character"),
    "string_too_long": lambda of: _sized("text", "at most", of["max_length"], "character"),
    "string_pattern_mismatch": lambda of: f"text of the form {of['pattern']} (a regular expression)",
    "list_type": "a list",
    "tuple_type": "a list",
    "set_type": "a list",
    "frozen_set_type": "a list",
    "iterable_type": "a list",
    "too_short": lambda of: _sized("a list", "at least", of["min_length"], "item"),
    "too_long": lambda of: _sized("a list", "at most", of["max_length"], "item"),
    "dict_type": MAPPING,
    "mapping_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "dataclass_type": MAPPING,
    "invalid_key": "a mapping whose keys are text",
    "url_type": "a URL",
    "url_parsing": "a URL",
    "date_type": "a date as YYYY-MM-DD",
    "date_parsing": "a date as YYYY-MM-DD",
}
CHOICES = ("literal_error", "enum")
BOOLEANS = ("bool_type", "bool_parsing")
# What Python's `repr` makes of a value, in the list that pydantic gives.
LITERAL = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|True|False|None|-?\d+(?:\.\d+)?""")


@dataclass(frozen=True)
class Words:
    """What to say of a value, and which value may have been meant."""

    message: str
    suggestion: str | None = None


def words_of(items: Sequence[ErrorDetails]) -> Words:
    """What to say of one value. It has several errors where it is none of several things that may stand there."""
    given = items[0]["input"]
    said = next((item["ctx"]["error"] for item in items if "error" in item.get("ctx", {})), None)
    if isinstance(said, ChoiceError):
        return _choice(said.given, said.accepted, [])
    if isinstance(said, Exception):
        return Words(f"{said} (given: {given_as(given)})")
    accepted = [name for item in items if item["type"] in CHOICES for name in _names(item)]
    rules = [_rule(item) for item in items if item["type"] not in CHOICES]
    if accepted:
        if any(item["type"] in BOOLEANS for item in items):
            accepted += ["true", "false"]
            rules = [rule for rule in rules if rule != BOOLEAN]
        return _choice(given, list(dict.fromkeys(accepted)), rules)
    rules = list(dict.fromkeys(rules)) or ["one of the accepted values"]
    if rules == [BOOLEAN] and isinstance(given, str):
        near = nearest(given, ["true", "false", "yes", "no", "on", "off"])
        return Words(f"must be {BOOLEAN}{_given(given)}", near[0] if near else None)
    return Words(f"must be {', or '.join(rules)}{_given(given)}{_remedy(rules, given)}")


def unread(kind: str) -> bool:
    """Whether the error is of a key that its group does not have."""
    return kind in ("extra_forbidden", "unexpected_keyword_argument")


def missing(kind: str) -> bool:
    """Whether the error is of a key that must be there and is not."""
    return kind.startswith("missing") and kind != "missing_sentinel_error"


def _choice(given: Any, accepted: Sequence[str], rules: Sequence[str]) -> Words:
    near = nearest(given, accepted) if isinstance(given, str) else []
    others = "".join(f", or {rule}" for rule in dict.fromkeys(rules))
    return Words(f"{choice_rule(str(given), accepted)}{others}{_given(given)}", near[0] if near else None)


def _names(item: ErrorDetails) -> list[str]:
    """The accepted values, as they are written in a YAML."""
    values = [
        ast.literal_eval(text) for text in LITERAL.findall(str(item.get("ctx", {}).get("expected", "")))
    ]
    return [value if isinstance(value, str) else given_as(value) for value in values]


def _rule(item: ErrorDetails) -> str:
    found = RULES.get(item["type"])
    if found is None:
        # No field of ours makes such an error now; its name says more than nothing.
        return f"another kind of value ({item['type']})"
    return found if isinstance(found, str) else found(item.get("ctx", {}))


def _sized(what: str, bound: str, count: int, unit: str) -> str:
    return f"{what} of {bound} {count} {unit}{'' if count == 1 else 's'}"


def _number(bound: float) -> str:
    return str(int(bound)) if float(bound).is_integer() else str(bound)


def _given(value: Any) -> str:
    return " (given: nothing, or null)" if value is None else f" (given: {given_as(value)})"


def _remedy(rules: Sequence[str], given: Any) -> str:
    """What to write instead, where that can be told."""
    if given is None:
        return "; give it a value, or take it out"
    if rules[0].startswith("text") and isinstance(given, bool | int | float):
        return "; put it in quotes if it is meant as text"
    if rules == ["a list"] and isinstance(given, str) and len(given) <= 100 and given.strip():
        return f"; write [{given}] for a list of one item"
    if rules[0].startswith("text") and isinstance(given, list) and len(given) == 1:
        return "; take the brackets or the dash away"
    if rules == [WHOLE] and isinstance(given, float):
        return f"; write {round(given)}, or another number without decimals"
    return ""
