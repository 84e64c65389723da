"""`tunemill config-schema`: `tunemill schema` by the name that Axolotl gives it."""

from typing import Any

from tunemill.pipelines.commands import schema


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    schema.add_to(commands, text, "config-schema")
