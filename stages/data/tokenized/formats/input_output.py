"""`type: input_output`: segments of text, each with a label that says whether it is trained on.

Nothing is put between or around the segments: BOS, EOS and white space are the data's own business.
"""

from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RowValue, Segment
from tunemill.stages.data.tokenized.config import TokenizedConfig


def input_output(config: TokenizedConfig, _kit: Kit) -> Format:
    """Rows of `segments`, each with its text and a label that says whether it is trained."""

    def read(row: RowValue) -> Example:
        segments = row.get("segments")
        if not isinstance(segments, list) or not segments:
            raise BadRowError(f"field 'segments' must be a list of segments, not {segments!r:.60}")
        return tuple(segment(number, value) for number, value in enumerate(segments, 1))

    def segment(number: int, value: Any) -> Segment:
        if not isinstance(value, dict) or not isinstance(value.get("text"), str):
            raise BadRowError(f"segment {number} has no 'text': {value!r:.60}")
        label = value.get("label")
        if not isinstance(label, bool):
            raise BadRowError(f"segment {number}: 'label' must be true or false, not {label!r:.60}")
        return Segment("output" if label else "input", value["text"], label or config.train_on_inputs)

    return Format(read)
