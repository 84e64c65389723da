"""Rows of tokens as words: what stands between white space, whatever white space it is."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain, repeat

import numpy as np
from tokenizers import Tokenizer

from tunemill.stages.data.leakage.grams import UNKNOWN, Int64s, Words
from tunemill.stages.data.rows.token_rows import Bools, Int32s, TokenRows

# Scripts that put no space between words: each of their characters is one.
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
# In so many of the held-out rows a word that follows a special token is the template's: the name of a role.
ROLE_SHARE = 0.1
TOKENS_AT_A_TIME = 1 << 20


@dataclass
class Vocabulary:
    """The words of the held-out rows, numbered from 1 in their order, and which of them are names of roles."""

    numbers: dict[str, int] = field(default_factory=dict)
    roles: frozenset[str] = frozenset()

    @property
    def words(self) -> list[str]:
        """The words by their numbers."""
        return ["", *self.numbers]

    @property
    def sizes(self) -> Int64s:
        """How many characters each word has, by its number."""
        return np.array([len(word) for word in self.words], np.int64)


@dataclass(frozen=True)
class Block:
    """Some rows: of each the words of its texts, which special tokens part; and a short mark that equal rows share."""

    rows: list[list[list[str]]]
    marks: list[bytes]


def known_words(blocks: Iterable[Block]) -> tuple[Words, Vocabulary]:
    """The words of the held-out rows, and their numbers."""
    texts = [row for block in blocks for row in block.rows]
    roles = _roles(texts)
    vocabulary = Vocabulary(roles=roles)
    known = vocabulary.numbers
    numbers: list[int] = []
    lengths = []
    for row in texts:
        words = list(_without_roles(row, roles))
        numbers += [known.setdefault(word, len(known) + 1) for word in words]
        lengths.append(len(words))
    return _words(numbers, lengths), vocabulary


def numbered(block: Block, vocabulary: Vocabulary) -> Words:
    """The words of rows that are trained on; those that no held-out row has are UNKNOWN."""
    found = [list(_without_roles(row, vocabulary.roles)) for row in block.rows]
    numbers = list(map(vocabulary.numbers.get, chain.from_iterable(found), repeat(UNKNOWN)))
    return _words(numbers, [len(words) for words in found])


def blocks_of_tokens(rows: TokenRows, tokenizer: Tokenizer) -> Iterator[Block]:
    """Rows of tokens, decoded."""
    added = tokenizer.get_added_tokens_decoder()
    is_special = np.zeros(
        tokenizer.get_vocab_size(with_added_tokens=True) + max(added, default=0) + 1, np.bool_
    )
    is_special[[number for number, token in added.items() if token.special]] = True
    for first, end in parts(rows.length):
        segments: list[list[int]] = []
        counts, marks = [], []
        for row in range(first, end):
            ids = rows.ids(row)
            found = _segments(ids, is_special)
            segments += found
            counts.append(len(found))
            marks.append(blake2b(ids.tobytes(), digest_size=16).digest())
        texts = iter(tokenizer.decode_batch(segments, skip_special_tokens=False))
        yield Block([[split(next(texts)) for _ in range(count)] for count in counts], marks)
        rows.release()


def _segments(ids: Int32s, is_special: Bools) -> list[list[int]]:
    """What stands before the first special token, and after each."""
    places = np.flatnonzero(is_special[ids]).tolist()
    plain = ids.tolist()
    return [
        plain[first:end] for first, end in zip([0, *(p + 1 for p in places)], [*places, None], strict=True)
    ]


def parts(lengths: Int64s) -> Iterator[tuple[int, int]]:
    """Rows that are looked at together, by their tokens: the first of them, and the one after the last."""
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        before = int(ends[first - 1]) if first else 0
        end = max(first + 1, int(np.searchsorted(ends, before + TOKENS_AT_A_TIME, "right")))
        yield first, end
        first = end


def split(text: str) -> list[str]:
    """The words of a text."""
    return text.split() if text.isascii() else WORD.findall(text)


def _roles(rows: Sequence[Sequence[Sequence[str]]]) -> frozenset[str]:
    """The words that follow a special token in many rows."""
    counts: dict[str, int] = {}
    for row in rows:
        for word in {segment[0] for segment in row[1:] if segment}:
            counts[word] = counts.get(word, 0) + 1
    return frozenset(word for word, count in counts.items() if count >= ROLE_SHARE * len(rows))


def _without_roles(row: Sequence[Sequence[str]], roles: frozenset[str]) -> Iterator[str]:
    """The words of a row."""
    for number, segment in enumerate(row):
        skipped = 1 if number and segment and segment[0] in roles else 0
        yield from segment[skipped:]


def _words(numbers: Sequence[int], lengths: Sequence[int]) -> Words:
    return Words(np.array(numbers, np.int64), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
