"""`type: stepwise_supervised`: answers in steps, each judged, for process reward models.

The last token of the separator that ends a step is labelled with the step's class; all other tokens are not trained.
"""

from typing import Any

from tunemill.stages.data.conversations.example import (
    BadRowError,
    Example,
    Format,
    Kit,
    Limited,
    RowValue,
    Segment,
    text_field,
)
from tunemill.stages.data.tokenized.config import TokenizedConfig


def stepwise_supervised(config: TokenizedConfig, kit: Kit) -> Format:
    """Rows of a `prompt`, the steps in `completions`, and as many `labels`: true or false, or the number of a class."""
    bos_id = kit.tokenizer.bos_token_id
    before = () if bos_id is None else (int(bos_id),)
    separator = config.step_separator
    # A separator that is no token leaves the label to the last token of the step.
    separated = bool(kit.ids_of(separator))

    def read(row: RowValue) -> Example:
        text = text_field(row, "prompt", required=True)
        # A prompt may bring its BOS along.
        missing = () if kit.ids_of(text)[:1] == list(before) else before
        prompt = Segment("prompt", text, trained=False, before=missing)
        steps = texts(row)
        classes = labels(row, len(steps))
        if config.train_on_last_step_only:
            classes = [*[None] * (len(classes) - 1), classes[-1]]
        segments: list[Segment] = []
        for text, label in zip(steps, classes, strict=True):
            segments.append(Segment("step", text, trained=False, last_label=None if separated else label))
            if separated:
                segments.append(Segment("separator", separator, trained=False, last_label=label))
        if config.max_completion_length is None:
            return (prompt, *segments)
        return Limited((prompt,), tuple(segments), config.max_completion_length)

    return Format(read, cuts=True)


def texts(row: RowValue) -> list[str]:
    """The steps of a row."""
    steps = row.get("completions")
    if not isinstance(steps, list) or not steps or not all(isinstance(step, str) for step in steps):
        raise BadRowError(f"field 'completions' must be a list of texts, not {steps!r:.60}")
    return steps


def labels(row: RowValue, steps: int) -> list[int | None]:
    """The class of each step."""
    values = row.get("labels")
    if not isinstance(values, list):
        raise BadRowError(f"field 'labels' must be a list of true and false, not {values!r:.60}")
    if len(values) != steps:
        raise BadRowError(f"there are {steps} completions and {len(values)} labels")
    return [label(number, value) for number, value in enumerate(values, 1)]


def label(number: int, value: Any) -> int:
    """A class as a number."""
    if not isinstance(value, int) or value < 0:
        raise BadRowError(f"label {number} must be true, false or the number of a class, not {value!r:.60}")
    return int(value)
