"""Prompts from a file: JSON lines or text."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.errors import RowError, SourceError
from tunemill.stages.text_files import text_of_file

JSON_LINES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Prompt:
    """A text, or the messages of a conversation; `line` is its place in the file, from 1."""

    line: int
    said: str | list[dict[str, str]]


def prompts_of(name: str) -> Iterator[Prompt]:
    """The prompts of a file (`-`: stdin): of each line a JSON text, `{"prompt": ...}` or `{"messages": [...]}` where it
    ends in .jsonl or its first line is such, else the line as it is. Empty lines are none.

    Raises RowError for a line that is none of these, SourceError for bytes that are no UTF-8.
    """
    text = text_of_stdin() if name == "-" else text_of_file(Path(name))
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    is_json = Path(name).suffix in JSON_LINES or (bool(lines) and lines[0][1].lstrip().startswith("{"))
    for number, line in lines:
        yield Prompt(number, _of_json(name, number, line) if is_json else line.rstrip("\r"))


def text_of_stdin() -> str:
    """All of it. Raises SourceError where it is no text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SourceError(
            f"stdin: the byte 0x{error.object[error.start]:02x} is no {error.encoding}"
        ) from None


def _of_json(name: str, number: int, line: str) -> str | list[dict[str, str]]:
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError(f"{name}:{number}: no JSON: {error}") from None
    said = row if isinstance(row, str) else None
    if isinstance(row, dict):
        said = row.get("messages", row.get("prompt"))
    if isinstance(said, str) or (isinstance(said, list) and said and all(map(_is_message, said))):
        return said
    raise RowError(
        f'{name}:{number}: write a text, {{"prompt": "..."}} or {{"messages": [{{"role": "user", "content": "..."}}]}}'
    )


def _is_message(item: Any) -> bool:
    return (
        isinstance(item, dict) and isinstance(item.get("role"), str) and isinstance(item.get("content"), str)
    )
