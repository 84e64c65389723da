"""No `type`: rows that are tokens already."""

from itertools import pairwise
from typing import Any

from tunemill.stages.data.conversations.example import BadRowError, Example, Format, Kit, RowValue, Tokens
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.tokenized.config import TokenizedConfig


def pretokenized(_config: TokenizedConfig, kit: Kit) -> Format:
    """Rows of `input_ids`, and perhaps `labels` and `attention_mask`, taken as they are."""
    vocabulary = len(kit.tokenizer)

    def read(row: RowValue) -> Example:
        if "input_ids" not in row:
            raise BadRowError(
                f"no field 'input_ids'; the row has {sorted(row)}. Without type: rows must be tokens already; for "
                "texts, set type:"
            )
        return tokens_of(row, vocabulary)

    return Format(read)


def tokens_of(row: RowValue, vocabulary: int) -> Tokens:
    """The tokens of a row; without labels all are trained on, except for padding.

    Raises BadRowError for numbers that are no tokens, lists of different lengths, and padding that is trained on
    or does not stand at the end.
    """
    ids = numbers(row, "input_ids")
    if not ids:
        raise BadRowError("field 'input_ids' is empty")
    check_range("input_ids", ids, 0, vocabulary)
    mask = numbers(row, "attention_mask") if "attention_mask" in row else [1] * len(ids)
    if not set(mask) <= {0, 1}:
        raise BadRowError("field 'attention_mask' must be a list of 0 and 1")
    if "labels" in row:
        labels = numbers(row, "labels")
        check_range("labels", [label for label in labels if label != IGNORED], 0, vocabulary)
    else:
        labels = [token if seen else IGNORED for token, seen in zip(ids, mask, strict=False)]
    for name, values in (("labels", labels), ("attention_mask", mask)):
        if name in row and len(values) != len(ids):
            raise BadRowError(f"there are {len(ids)} input_ids and {len(values)} {name}")
    check_padding(mask, labels)
    return Tokens(ids, labels)


def numbers(row: RowValue, name: str) -> list[int]:
    """A list of integers."""
    values: Any = row.get(name)
    if not isinstance(values, list):
        raise BadRowError(f"field {name!r} must be a list of integers, not {values!r:.60}")
    if not {type(value) for value in values} <= {int}:
        wrong = next(value for value in values if type(value) is not int)
        raise BadRowError(f"field {name!r} must be a list of integers, and has {wrong!r:.60}")
    return values


def check_range(name: str, ids: list[int], low: int, end: int) -> None:
    """Raises BadRowError for ids that are no tokens."""
    if ids and not low <= min(ids) <= max(ids) < end:
        wrong = next(token for token in ids if not low <= token < end)
        also = " or -100" if name == "labels" else ""
        raise BadRowError(f"{name}: {wrong} is no token: the tokenizer's are 0 to {end - 1}{also}")


def check_padding(mask: list[int], labels: list[int]) -> None:
    """Padding behind the text is seen by no token of it; any other would be, because the mask is not kept."""
    if 0 not in mask:
        return
    if any(not before and after for before, after in pairwise(mask)):
        raise BadRowError(
            "attention_mask hides tokens that others follow; leave padding out, or put it at the end"
        )
    if any(label != IGNORED and not seen for seen, label in zip(mask, labels, strict=True)):
        raise BadRowError("a token that attention_mask hides is trained on; its label must be -100")
