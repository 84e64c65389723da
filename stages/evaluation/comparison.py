"""Whether an answer says what the reference says."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tunemill.stages.evaluation.questions import Question

# What bytes that are no UTF-8 decode to: different ones look alike.
BROKEN = "\ufffd"


@dataclass(frozen=True)
class Reader:
    """A tokenizer, which of its ids are text (neither special nor added), and the ids of some text.

    Ids beyond the vocabulary are no text either: they decode to nothing.
    """

    tokenizer: Any
    text_ids: frozenset[int]
    anchor: tuple[int, ...]

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text, special tokens and white space kept."""
        decoded = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(decoded)

    def parts(self, ids: Sequence[int]) -> list[int | str]:
        """Text as text, which different tokens may spell alike; every other token as itself."""
        found: list[int | str] = []
        for is_text, group in groupby(ids, self.text_ids.__contains__):
            tokens = list(group)
            # Some tokenizers drop a space at the beginning: there, the anchor stands.
            found += [self.text([*self.anchor, *tokens])] if is_text else tokens
        return found


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of special and added tokens."""
    return frozenset(tokenizer.all_special_ids) | frozenset(tokenizer.added_tokens_decoder)


def reader_of(tokenizer: Any) -> Reader:
    """How answers are read with this tokenizer."""
    text_ids = frozenset(tokenizer.get_vocab().values()) - special_ids(tokenizer)
    return Reader(tokenizer, text_ids, tuple(tokenizer.encode("a", add_special_tokens=False)))


def is_right(question: Question, answer: Sequence[int], reader: Reader) -> bool:
    """Whether everything but the end token is the same, and the answer ends where the reference does.

    One of the model's end tokens is as good as another. Any other special token at the end is part of the answer.
    """
    if question.reference[-1] in question.ends and not (answer and answer[-1] in question.ends):
        return False
    if question.reference[-1] not in question.ends:
        return _same(question.reference, answer, reader)
    return _same(question.reference[:-1], answer[:-1], reader)


def _same(one: Sequence[int], other: Sequence[int], reader: Reader) -> bool:
    if list(one) == list(other):
        return True
    parts = reader.parts(one)
    broken = any(isinstance(part, str) and BROKEN in part for part in parts)
    return not broken and parts == reader.parts(other)
