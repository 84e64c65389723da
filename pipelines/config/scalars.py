"""What a scalar without quotes means: YAML 1.2's core rules, with a note where Axolotl's YAML 1.1 differs.

Two things of YAML 1.1 are kept, because they mean the same to everybody: yes, no, on and off are true and false, and
`1_000` is a number. Exponents such as `1e-4`, which YAML 1.1 takes for text, are numbers without a note: Axolotl makes
the same number of the text.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

NULLS = frozenset({"", "~", "null", "Null", "NULL"})
BOOLEANS = {"true": True, "false": False}
OLD_BOOLEANS = {"yes": True, "on": True, "no": False, "off": False}
INTEGER = re.compile(r"[-+]?[0-9]+")
OCTAL_OR_HEXADECIMAL = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
WITH_UNDERSCORES = re.compile(r"[-+]?(0|[1-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
# What YAML 1.1 takes for numbers and dates, and nobody else does.
OLD_OCTAL = re.compile(r"[-+]?0[0-7_]+")
OLD_BINARY = re.compile(r"[-+]?0b[01_]+")
OLD_HEXADECIMAL = re.compile(r"[-+]?0x[0-9a-fA-F_]+")
OLD_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
OLD_DATE = re.compile(r"\d{4}-\d\d-\d\d|\d{4}-\d\d?-\d\d?([Tt]|[ \t]+)\d\d?:\d\d:\d\d(\.\d*)?.*")
LONGEST_NUMBER = 100
# What 64 bits hold.
SMALLEST, LARGEST = -(2**63), 2**64 - 1


@dataclass(frozen=True)
class Scalar:
    """A value, and what is to be said of it where others read something else."""

    value: Any
    note: str | None = None


def plain(text: str) -> Scalar:
    """The value of a scalar without quotes. Raises ValueError for a number that nothing can hold."""
    if text in NULLS:
        return Scalar(None)
    # `true`, `True` and `TRUE`, but not `tRUE`.
    cased = text.lower() if text in (text.lower(), text.upper(), text.capitalize()) else text
    if cased in BOOLEANS:
        return Scalar(BOOLEANS[cased])
    if cased in OLD_BOOLEANS:
        value = OLD_BOOLEANS[cased]
        meant = str(value).lower()
        return Scalar(value, f"`{text}` is read as {meant}, as in Axolotl; YAML 1.2 takes it for text: "
                             f"write {meant}, or put it in quotes")  # fmt: skip
    if text[0] not in "+-.0123456789":
        return Scalar(text)
    if NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    return _number(text) or _not_a_number(text)


def _number(text: str) -> Scalar | None:
    if INTEGER.fullmatch(text):
        value = _whole(text, 10)
        return Scalar(value, _other_than_octal(text, value))
    if OCTAL_OR_HEXADECIMAL.fullmatch(text):
        value = _whole(text, 0)
        other = "takes it for text" if text[1] == "o" else None
        return Scalar(value, _differs(text, str(value), other, str(value)))
    if FLOAT.fullmatch(text):
        return Scalar(_finite(text))
    if WITH_UNDERSCORES.fullmatch(text):
        bare = text.replace("_", "")
        number = _whole(bare, 10) if INTEGER.fullmatch(bare) else _finite(bare)
        return Scalar(number, f"`{text}` is read as {number}, as in Axolotl; YAML 1.2 takes it for text: "
                              f"write {number}, or put it in quotes")  # fmt: skip
    return None


def _not_a_number(text: str) -> Scalar:
    """Text, with a note where YAML 1.1 sees something else in it."""
    other = None
    if len(text) > LONGEST_NUMBER:
        return Scalar(text)
    if OLD_BINARY.fullmatch(text):
        other = str(int(text.replace("_", ""), 2))
    elif OLD_OCTAL.fullmatch(text):
        other = str(_old_octal(text))
    elif OLD_HEXADECIMAL.fullmatch(text) and text.replace("_", "")[-1] != "x":
        other = str(int(text.replace("_", ""), 16))
    elif OLD_BASE_60.fullmatch(text):
        other = _base_60(text)
    elif OLD_DATE.fullmatch(text):
        return Scalar(text, _differs(text, "text", "takes it for a date", None))
    return Scalar(text, _differs(text, "text", f"takes it for {other}", other) if other else None)


def _whole(text: str, base: int) -> int:
    value = int(text, base) if len(text) <= LONGEST_NUMBER else LARGEST + 1
    if not SMALLEST <= value <= LARGEST:
        raise ValueError(
            f"{shortened(text)} needs more than 64 bits as a number; put it in quotes if it is meant as text"
        )
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shortened(text)} is larger than any number that 64 bits hold")
    return value


def _other_than_octal(text: str, value: int) -> str | None:
    """What YAML 1.1 makes of a whole number that begins with 0."""
    digits = text.lstrip("+-")
    if len(digits) == 1 or digits[0] != "0":
        return None
    if not OLD_OCTAL.fullmatch(text):
        return _differs(text, str(value), "takes it for text", str(value))
    old = _old_octal(text)
    return None if old == value else _differs(text, str(value), f"takes it for {old}", f"{value} or {old}")


def _old_octal(text: str) -> int:
    digits = text.replace("_", "").lstrip("+-")
    return int(digits, 8) * (-1 if text[0] == "-" else 1)


def _base_60(text: str) -> str:
    total = 0.0
    for part in text.replace("_", "").lstrip("+-").split(":"):
        total = total * 60 + float(part)
    number = int(total) if total.is_integer() else total
    return f"-{number}" if text[0] == "-" else str(number)


def _differs(text: str, read_as: str, other: str | None, write: str | None) -> str | None:
    if other is None:
        return None
    remedy = [f"write {write}"] if write else []
    remedy += ["put it in quotes"] if read_as == "text" else []
    return f"`{text}` is read as {read_as}; YAML 1.1, which Axolotl reads, {other}: {', or '.join(remedy)}"


def shortened(text: str, most: int = 60) -> str:
    """The text, cut where it is long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
