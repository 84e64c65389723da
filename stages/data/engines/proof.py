"""Whether the fast engine makes the same tokens as the reference: asked before it is used, and while it is."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
from tokenizers import Tokenizer

from tunemill.stages.data.engines.battery import battery
from tunemill.stages.data.engines.encoded import (
    CHECKED_EVERY,
    DifferentError,
    Encoded,
    Engine,
    Spanned,
    other_tokens,
)
from tunemill.stages.data.engines.fast import Fast, UnfitError
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.report import Report

MOST_SPECIAL_TOKENS = 64
# What describes the tokenizers of which the whole battery has come out the same in this process, as SHA-256.
_proven: set[bytes] = set()

Made = TypeVar("Made", bound=Encoded)
Done = TypeVar("Done")


class Checked:
    """The fast engine, of which one text in a hundred is compared with the reference.

    Raises DifferentError where they differ, and where the fast one breaks down.
    """

    def __init__(self, fast: Fast, reference: Reference) -> None:
        self.name = fast.name
        self._fast = fast
        self._reference = reference
        self._texts = 0

    def ids(self, texts: Sequence[str]) -> Encoded:
        """Tokens of texts without BOS, EOS and the like."""
        return self._checked(texts, self._fast.ids, self._reference.ids)

    def spans(self, texts: Sequence[str]) -> Spanned:
        """The tokens of `ids`, with their characters."""
        return self._checked(texts, self._fast.spans, self._reference.spans)

    def _checked(
        self,
        texts: Sequence[str],
        fast: Callable[[Sequence[str]], Made],
        reference: Callable[[Sequence[str]], Made],
    ) -> Made:
        with PanicIsDifference():
            made = fast(texts)
        chosen = range(-self._texts % CHECKED_EVERY, len(texts), CHECKED_EVERY)
        self._texts += len(texts)
        if chosen:
            compare(made, chosen, reference([texts[index] for index in chosen]), texts)
        return made


def with_engine(
    wanted: str,
    reference: Reference,
    own_texts: Sequence[str],
    report: Report,
    work: Callable[[Engine, bool], Done],
) -> Done:
    """The work with the engine that is proven, once more with the reference where something turns out wrong.

    `work` is also told whether it may take other short cuts, which check themselves as engines do. `wanted`: "auto",
    or "tokenizers" for the reference alone.
    """
    if wanted == Reference.name:
        report.summary(engine=wanted)
        return work(reference, False)
    engine, why = proven(reference, own_texts)
    try:
        done = work(engine or reference, True)
    except DifferentError as error:
        report.log(f"all rows are tokenized again, by {Reference.name} and without short cuts: {error}")
        why, engine = str(error), None
        done = work(reference, False)
    report.summary(engine=(engine or reference).name, **({} if why is None else {"engine_reason": why}))
    return done


def proven(reference: Reference, own_texts: Sequence[str]) -> tuple[Engine | None, str | None]:
    """The fast engine, where it is proven with the battery and with a dataset's own texts, or why it is not."""
    if reference.bare.encode_special_tokens:
        return None, "what looks like a special token is text here"
    try:
        with silent_standard_error(), PanicIsDifference():
            fast = Fast(reference)
            _prove_with_battery(fast, reference)
            prove(fast, reference, own_texts)
    except (UnfitError, DifferentError) as error:
        return None, str(error)
    return Checked(fast, reference), None


def _prove_with_battery(fast: Fast, reference: Reference) -> None:
    """As `prove`; a process that prepares several datasets asks once about their tokenizer."""
    described = sha256(fast.description.encode()).digest()
    if described not in _proven:
        prove(fast, reference, battery(special_tokens(reference.bare)))
        _proven.add(described)


def engine_of(name: str, reference: Reference) -> Engine:
    """The engine of that name, which is proven for the tokenizer of the reference."""
    return Checked(Fast(reference), reference) if name == Fast.name else reference


def special_tokens(tokenizer: Tokenizer) -> list[str]:
    """Tokens that are found in a text before it is cut; of many the first and the last ones."""
    found = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items())]
    half = MOST_SPECIAL_TOKENS // 2
    return found if len(found) <= MOST_SPECIAL_TOKENS else found[:half] + found[-half:]


def prove(fast: Fast, reference: Reference, texts: Sequence[str]) -> None:
    """Raises DifferentError for the first text of which they make other tokens, or tokens of other characters."""
    made, expected = fast.spans(texts), reference.spans(texts)
    if not _same(made, expected):
        compare(made, range(len(texts)), expected, texts)


def _same(made: Spanned, expected: Spanned) -> bool:
    """Whether two batches are the same altogether."""
    return all(
        np.array_equal(getattr(made, column.name), getattr(expected, column.name))
        for column in fields(Spanned)
    )


def compare(made: Encoded, chosen: Sequence[int], expected: Encoded, texts: Sequence[str]) -> None:
    """Raises DifferentError where the chosen ones of `made` are not as expected, one after the other."""
    for place, index in enumerate(chosen):
        one = slice(int(made.offsets[index]), int(made.offsets[index + 1]))
        other = slice(int(expected.offsets[place]), int(expected.offsets[place + 1]))
        same = np.array_equal(made.ids[one], expected.ids[other])
        if same and isinstance(made, Spanned) and isinstance(expected, Spanned):
            same = np.array_equal(made.starts[one], expected.starts[other]) and np.array_equal(
                made.ends[one], expected.ends[other]
            )
        if not same:
            raise other_tokens(texts[index])


class PanicIsDifference:
    """Around calls of the engine: a panic of its Rust code, which is no Exception, becomes a DifferentError.

    The class of panics cannot be imported: every library that is written with PyO3 has one of its own.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: Any) -> None:
        if kind is not None and kind.__name__ == "PanicException":
            raise DifferentError(f"it breaks down: {error}") from None


@contextmanager
def silent_standard_error() -> Iterator[None]:
    """Rust writes of a panic to standard error, past Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
