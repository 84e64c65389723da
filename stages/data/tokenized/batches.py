"""Batches of rows to tokens: the work that one process, or each of several, does."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.example import BadRowError, Example, Format
from tunemill.stages.data.conversations.samples import Sample
from tunemill.stages.data.engines.proof import engine_of
from tunemill.stages.data.rows.raw_rows import BatchNumber, RawRow, reader_of_batches
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.statistics import Counts
from tunemill.stages.data.tokenized.words import make_format, words_of
from tunemill.stages.errors import RowPlace
from tunemill.stages.report import Report

GARBAGE_THRESHOLD = 1_000_000
SHOWN_EXAMPLES = 3
# So many rows are made before the others of the first batch: it is seen sooner that a source can be read.
FIRST_ROWS = 64


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: where it stands, why, and the row as text and value."""

    place: RowPlace
    reason: str
    text: str
    value: Any


class Wanted(NamedTuple):
    """Rows that are to be read, whether their tokens are wanted too, and whether they end a stored batch."""

    number: BatchNumber
    tokens: bool
    ends: bool


def cut(numbers: Sequence[BatchNumber]) -> Iterator[tuple[BatchNumber, bool]]:
    """What is read one after the other, and whether it ends a stored batch: the first batch comes in two parts."""
    for number in numbers:
        parts = number.cut(FIRST_ROWS) if number.index == 0 else [number]
        yield from ((part, part is parts[-1]) for part in parts)


@dataclass
class Done:
    """Rows: how many are good, the bad ones, the first good ones, and their tokens, where they are wanted.

    `ends`: with them a stored batch ends.
    """

    ends: bool
    good: int = 0
    tokens: pa.RecordBatch | None = None
    counts: Counts = field(default_factory=Counts)
    bad: list[BadRow] = field(default_factory=list)
    first: Any = None
    examples: list[Sample] = field(default_factory=list)


def batch_maker(
    config: TokenizedConfig, rows: Path, name: str, tokenizer: Tokenizer, engine: str, traced: bool
) -> Callable[[Wanted], Done]:
    """Makes tokens of stored batches in a process of its own, with the engine of that name, which is proven."""
    words = words_of(tokenizer)
    chosen = make_format(config, words, Report(lambda _: None), traced=traced)
    return batches_with(rows, name, chosen, words.encoder.using(engine_of(engine, words.encoder.reference)))


def batches_with(rows: Path, name: str, chosen: Format, encoder: Encoder) -> Callable[[Wanted], Done]:
    """Makes tokens of stored batches."""
    read = reader_of_batches(rows, name)

    def made(wanted: Wanted) -> Done:
        with rare_garbage_collection():
            return tokens_of(read(wanted.number), wanted.ends, chosen, encoder if wanted.tokens else None)

    return made


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Look for cycles seldom: a batch is many small objects and no cycles, and looking costs a sixth of the time."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def tokens_of(batch: list[RawRow], ends: bool, chosen: Format, encoder: Encoder | None) -> Done:
    """What the format makes of rows, and the tokenizer where it is given."""
    done = Done(ends)
    good: list[RawRow] = []
    examples: list[Example] = []
    for row in batch:
        try:
            examples.append(chosen.read(row.value))
            good.append(row)
        except BadRowError as error:
            done.bad.append(BadRow(row.place, str(error), row.text, row.value))
    done.good = len(good)
    done.first = good[0].value if good else None
    if good and encoder is not None:
        samples = encoder.encode(examples, chosen.ends)
        done.counts.add(examples, samples)
        done.tokens = samples.batch([row.number for row in good])
        done.examples += islice(samples, SHOWN_EXAMPLES)
    return done
