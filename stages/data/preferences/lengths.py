"""Prepared rows and their tokens: what limits of length go by."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.preferences.records import Pair, Rated, Record, Reward, Whole
from tunemill.stages.data.preferences.type_table import Kind
from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.rows.token_rows import list_array

NUMBERED = [("source_row", pa.int64()), ("tokens", pa.int32())]
INTEGERS = pa.list_(pa.int32())
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
        ]
    ),
    "reward": pa.schema([*NUMBERED, ("chosen_ids", INTEGERS), ("rejected_ids", INTEGERS)]),
}

Columns = dict[str, pa.Array]
Lengths = dict[str, list[int]]


@dataclass(frozen=True)
class Measured:
    """A batch of prepared rows, and the tokens of their parts: part -> one number per row."""

    batch: pa.RecordBatch
    lengths: Lengths


def measure(records: Sequence[Record], numbers: Sequence[int], kind: Kind, encoder: Encoder) -> Measured:
    """Tokenize a batch. `numbers` are the rows' numbers in the dataset; `records` are all of that kind.

    Neither BOS nor EOS is counted, except in the conversations of a reward model, which are stored as tokens.
    """
    if kind == "reward":
        columns, lengths = of_conversations([r for r in records if isinstance(r, Reward)], encoder)
    elif kind == "pair":
        pairs = [r for r in records if isinstance(r, Pair)]
        answers = {"chosen": [r.chosen for r in pairs], "rejected": [r.rejected for r in pairs]}
        columns, lengths = of_texts([r.prompt for r in pairs], answers, encoder)
    else:
        rated = [r for r in records if isinstance(r, Rated)]
        answers = {"completion": [r.completion for r in rated]}
        columns, lengths = of_texts([r.prompt for r in rated], answers, encoder)
        columns["label"] = column([r.label for r in rated], pa.bool_())
    columns["source_row"] = column(numbers, pa.int64())
    schema = SCHEMAS[kind]
    return Measured(pa.record_batch([columns[name] for name in schema.names], schema=schema), lengths)


def of_conversations(records: Sequence[Reward], encoder: Encoder) -> tuple[Columns, Lengths]:
    """Token ids of both sides, and how many there are."""
    sides = {side: ids_of(records, side, encoder) for side in ("chosen", "rejected")}
    lengths = {side: [len(ids) for ids in rows] for side, rows in sides.items()}
    columns = {f"{side}_ids": list_array(rows) for side, rows in sides.items()}
    return columns | {"tokens": column(longest(lengths), pa.int32())}, lengths


def of_texts(
    prompts: Sequence[str], answers: dict[str, list[str]], encoder: Encoder
) -> tuple[Columns, Lengths]:
    """The texts, where the answers' tokens end, and how many tokens there are."""
    encodings = encoder.bare.encode_batch_fast(prompts, add_special_tokens=False)
    prompt_tokens = [len(encoding) for encoding in encodings]
    ends = {side: token_ends(texts, encoder) for side, texts in answers.items()}
    lengths = {side: [len(row) for row in rows] for side, rows in ends.items()}
    tokens = [prompt + answer for prompt, answer in zip(prompt_tokens, longest(lengths), strict=True)]
    columns = {
        "prompt": column(prompts, pa.string()),
        "prompt_tokens": column(prompt_tokens, pa.int32()),
        "tokens": column(tokens, pa.int32()),
        **{side: column(texts, pa.string()) for side, texts in answers.items()},
        **{f"{side}_ends": list_array(rows) for side, rows in ends.items()},
    }
    return columns, {"prompt": prompt_tokens, **lengths}


def ids_of(records: Sequence[Reward], side: str, encoder: Encoder) -> list[list[int]]:
    """Token ids of one side's conversations."""
    wholes: list[Whole] = [getattr(record, side) for record in records]
    tokenizer, bos = (encoder.full, True) if records and records[0].bos else (encoder.bare, False)
    texts = [whole.text for whole in wholes] + [whole.prompt for whole in wholes]
    ids = [e.ids for e in tokenizer.encode_batch_fast(texts, add_special_tokens=bos)]
    found: list[list[int]] = []
    for whole, row, prompt in zip(wholes, ids[: len(wholes)], ids[len(wholes) :], strict=True):
        found.append([*prompt, *row[len(prompt) :]] if whole.prompt else row)
    return found


def token_ends(texts: Sequence[str], encoder: Encoder) -> list[list[int]]:
    """Of each text, for each token the character that it ends before."""
    encodings = encoder.bare.encode_batch(list(texts), add_special_tokens=False)
    return [[end for _, end in encoding.offsets] for encoding in encodings]


def longest(lengths: Lengths) -> list[int]:
    """The longer answer of each row, in tokens."""
    return [max(row) for row in zip(*lengths.values(), strict=True)]
