"""`type: completion`: raw text, all of it trained on."""

from tunemill.stages.data.conversations.example import Example, Format, Kit, RowValue, Segment, text_field
from tunemill.stages.data.tokenized.config import TokenizedConfig


def completion(config: TokenizedConfig, _kit: Kit) -> Format:
    """Raw text in one field, trained whole."""
    field = config.field or "text"

    def read(row: RowValue) -> Example:
        return (Segment("text", text_field(row, field, required=True), trained=True, bos=True, eos=1),)

    return Format(read, splits=True)
