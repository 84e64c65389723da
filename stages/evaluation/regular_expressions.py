"""Regular expressions of the YAML, looked for in answers."""

import re
from typing import Annotated

from pydantic import AfterValidator


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


RegularExpression = Annotated[str, AfterValidator(_compiles)]


def last(pattern: str, text: str) -> str | None:
    """The last place of a text that a pattern finds; of one with groups the first group of it."""
    found = None
    for match in re.finditer(pattern, text):
        found = match.group(1) if match.re.groups else match.group()
    return found
