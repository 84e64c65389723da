"""The first rows of preference data, to be looked at: the prompt and each answer, as training tokenizes them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.shown import ShownRow, ShownTokens, first_rows, shown_tokens


def preference_rows(data: Path, words: Tokenizer, count: int) -> Iterator[ShownRow]:
    """Pairs, judged answers or pairs of conversations, before they are cut to the sequence length."""
    encoder = Encoder(Reference(words), None)
    for row in first_rows(data / "rows.arrow", count):
        pieces = _conversations(row) if "chosen_ids" in row else _texts(row, encoder)
        yield ShownRow(row["source_row"], pieces)


def _texts(row: dict[str, Any], encoder: Encoder) -> tuple[ShownTokens, ...]:
    """The prompt, and each answer behind it. A token that reaches into an answer is shown with it."""
    names = {"chosen": "chosen", "rejected": "rejected"}
    if "completion" in row:
        names = {"completion": "good completion" if row["label"] else "bad completion"}
    found: list[ShownTokens] = []
    for side, role in names.items():
        ids, offsets = encoder.offsets_of(row["prompt"] + row[side])
        start = sum(end <= len(row["prompt"]) for _, end in offsets)
        if not found:
            found.append(shown_tokens("prompt", "masked", ids, 0, start))
        found.append(shown_tokens(role, "trained", ids, start, len(ids)))
    return tuple(found)


def _conversations(row: dict[str, Any]) -> tuple[ShownTokens, ...]:
    """What both begin with before either says something of its own, and the rest of each, which is what is scored."""
    start = min(row["chosen_quiet"], row["rejected_quiet"], row["same_tokens"])
    answers = (
        shown_tokens(side, "scored", row[f"{side}_ids"], start, len(row[f"{side}_ids"]))
        for side in ("chosen", "rejected")
    )
    return (shown_tokens("prompt", "masked", row["chosen_ids"], 0, start), *answers)
