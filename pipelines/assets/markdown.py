"""Markdown as Dagster's pages render it: tables, and texts of users that must not become markup."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

# What has a meaning in Markdown wherever it stands. An underscore inside of a word has none.
MARKUP = re.compile(r"([\\`*\[\]|~$#])|(?<!\w)_|_(?!\w)")


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A GitHub-style table; bars and line breaks in cells are escaped."""

    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", "⏎") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *(line(row) for row in rows)])


def plain(text: str) -> str:
    """A text of somebody else's, so that it is shown as it is, in one line."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKUP.sub(lambda found: f"\\{found[0]}", line)


def page_of(parts: Iterable[str]) -> str:
    """The parts that there are, a paragraph each. Names of files may hold bytes that are no text."""
    return "\n\n".join(part for part in parts if part).encode("utf-8", "backslashreplace").decode()
