"""JSON that a row stores as text, read so that nothing of it is lost unseen."""

from typing import Any

from tunemill.stages.data.conversations.example import BadRowError
from tunemill.stages.data.sources.json_values import NO_JSON, decoded


def parsed(text: str, where: str) -> Any:
    """The value behind a JSON text. Raises BadRowError for what is no JSON, and for what no row could keep."""
    try:
        return decoded(text)
    except ValueError as error:
        raise BadRowError(f"{where} should be JSON: {str(error).removeprefix(NO_JSON)}") from None
