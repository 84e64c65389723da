"""Prepared rows and their tokens: what limits of length go by."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.preferences.quiet import quiet_characters, quiet_tokens
from tunemill.stages.data.preferences.records import Pair, Rated, Record, Reward, Said, Whole
from tunemill.stages.data.preferences.type_table import Kind
from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.rows.token_rows import Int32s, list_array

NUMBERED = [("source_row", pa.int64()), ("tokens", pa.int32())]
INTEGERS = pa.list_(pa.int32())
# How many tokens an answer may have and still say nothing, and how many both answers begin with.
TOLD_APART = [("chosen_quiet", pa.int32()), ("rejected_quiet", pa.int32()), ("same_tokens", pa.int32())]
# `*_ends`: for each token of an answer the character of the answer that it ends before.
SCHEMAS: dict[Kind, pa.Schema] = {
    "pair": pa.schema(
        [
            *NUMBERED,
            ("prompt", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("prompt_tokens", pa.int32()),
            ("chosen_ends", INTEGERS),
            ("rejected_ends", INTEGERS),
            *TOLD_APART,
        ]
    ),
    "rated": pa.schema(
        [
            *NUMBERED,
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("label", pa.bool_()),
            ("prompt_tokens", pa.int32()),
            ("completion_ends", INTEGERS),
            ("completion_quiet", pa.int32()),
        ]
    ),
    "reward": pa.schema([*NUMBERED, ("chosen_ids", INTEGERS), ("rejected_ids", INTEGERS), *TOLD_APART]),
}

Columns = dict[str, pa.Array]
Lengths = dict[str, list[int]]


@dataclass(frozen=True)
class Measured:
    """A batch of prepared rows, and the tokens of their parts: part -> one number per row.

    `equal` rows have answers of the same tokens, `empty` ones an answer that says nothing, before any is cut.
    """

    batch: pa.RecordBatch
    lengths: Lengths
    equal: int
    empty: int


@dataclass(frozen=True)
class Tokens:
    """Tokens of an answer, or of a whole conversation, and how many of the first ones say nothing."""

    ids: Int32s
    ends: Int32s
    quiet: int


def measure(
    records: Sequence[Record], numbers: Sequence[int], kind: Kind, encoder: Encoder, quiet: re.Pattern[str]
) -> Measured:
    """Tokenize a batch. `numbers` are the rows' numbers in the dataset; `records` are all of that kind.

    Neither BOS nor EOS is counted, except in the conversations of a reward model, which are stored as tokens.
    `quiet` matches what says nothing.
    """
    if kind == "reward":
        wholes = [r for r in records if isinstance(r, Reward)]
        sides = {side: tokens_of_wholes(wholes, side, encoder, quiet) for side in ("chosen", "rejected")}
        columns, lengths = of_conversations(sides)
    else:
        named = ("chosen", "rejected") if kind == "pair" else ("completion",)
        texts = {side: [getattr(r, side) for r in records] for side in named}
        said = {side: [said_of(r, place) for r in records] for place, side in enumerate(named)}
        sides = {side: tokens_of_texts(texts[side], said[side], encoder, quiet) for side in named}
        columns, lengths = of_texts(
            [r.prompt for r in records if not isinstance(r, Reward)], texts, sides, encoder
        )
    if kind == "rated":
        columns["label"] = column([r.label for r in records if isinstance(r, Rated)], pa.bool_())
    columns["source_row"] = column(numbers, pa.int64())
    answers = list(zip(*sides.values(), strict=True))
    same = [same_tokens(*pair) for pair in answers] if len(sides) == 2 else []
    columns["same_tokens"] = column(same, pa.int32())
    equal = sum(
        n == len(a.ids) == len(b.ids) for n, (a, b) in zip(same, answers if same else [], strict=True)
    )
    empty = sum(any(len(tokens.ids) <= tokens.quiet for tokens in row) for row in answers)
    schema = SCHEMAS[kind]
    batch = pa.record_batch([columns[name] for name in schema.names], schema=schema)
    return Measured(batch, lengths, equal, empty)


def said_of(record: Record, place: int) -> Said | None:
    """What is said of the answer at a place of a record."""
    if isinstance(record, Pair):
        return None if record.said is None else record.said[place]
    assert isinstance(record, Rated)
    return record.said


def of_conversations(sides: dict[str, list[Tokens]]) -> tuple[Columns, Lengths]:
    """Token ids of both sides, and how many there are."""
    lengths = {side: [len(tokens.ids) for tokens in rows] for side, rows in sides.items()}
    columns = {f"{side}_ids": list_array([tokens.ids for tokens in rows]) for side, rows in sides.items()}
    return columns | quiet_columns(sides) | {"tokens": column(longest(lengths), pa.int32())}, lengths


def of_texts(
    prompts: Sequence[str], answers: dict[str, list[str]], sides: dict[str, list[Tokens]], encoder: Encoder
) -> tuple[Columns, Lengths]:
    """The texts, where the answers' tokens end, and how many tokens there are."""
    prompt_tokens = np.diff(encoder.engine.ids(prompts).offsets).tolist()
    lengths = {side: [len(tokens.ids) for tokens in rows] for side, rows in sides.items()}
    tokens = [prompt + answer for prompt, answer in zip(prompt_tokens, longest(lengths), strict=True)]
    columns = {
        "prompt": column(prompts, pa.string()),
        "prompt_tokens": column(prompt_tokens, pa.int32()),
        "tokens": column(tokens, pa.int32()),
        **{side: column(texts, pa.string()) for side, texts in answers.items()},
        **{f"{side}_ends": list_array([tokens.ends for tokens in rows]) for side, rows in sides.items()},
        **quiet_columns(sides),
    }
    return columns, {"prompt": prompt_tokens, **lengths}


def quiet_columns(sides: dict[str, list[Tokens]]) -> Columns:
    """How many tokens each answer may have and still say nothing."""
    return {
        f"{side}_quiet": column([tokens.quiet for tokens in rows], pa.int32()) for side, rows in sides.items()
    }


def tokens_of_texts(
    texts: Sequence[str], said: Sequence[Said | None], encoder: Encoder, quiet: re.Pattern[str]
) -> list[Tokens]:
    """Answers as tokens, each by itself; `said` is what is said of each, None for all of it."""
    spanned = encoder.engine.spans(texts)
    found = []
    for text, part, ids, ends in zip(texts, said, spanned, spanned.by_text(spanned.ends), strict=True):
        silent = quiet_tokens(ends, quiet_characters(text, part, quiet), len(text))
        found.append(Tokens(ids, ends, silent))
    return found


def tokens_of_wholes(
    records: Sequence[Reward], side: str, encoder: Encoder, quiet: re.Pattern[str]
) -> list[Tokens]:
    """One side's conversations as tokens, each tokenized as a whole, with what the tokenizer puts around them."""
    wholes: list[Whole] = [getattr(record, side) for record in records]
    found = tokens_of_texts([w.text for w in wholes], [w.said for w in wholes], encoder, quiet)
    if not records or not records[0].bos:
        return found
    opening, closing = encoder.opening, np.array(encoder.reference.closing, np.int32)
    around = len(opening) + len(closing)
    return [
        Tokens(np.concatenate([opening, tokens.ids, closing]), tokens.ends, tokens.quiet + around)
        for tokens in found
    ]


def same_tokens(one: Tokens, other: Tokens) -> int:
    """How many tokens both begin with."""
    least = min(len(one.ids), len(other.ids))
    differ = np.flatnonzero(one.ids[:least] != other.ids[:least])
    return int(differ[0]) if len(differ) else least


def longest(lengths: Lengths) -> list[int]:
    """The longer answer of each row, in tokens."""
    return [max(row) for row in zip(*lengths.values(), strict=True)]
