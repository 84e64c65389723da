"""Examples to token ids and labels, a batch at a time."""

from collections.abc import Sequence
from copy import copy

import numpy as np

from tunemill.stages.data.conversations.example import (
    Conversation,
    Ends,
    Example,
    Limited,
    Segment,
    TokenConversation,
    Tokens,
)
from tunemill.stages.data.conversations.masks import label, label_tokens
from tunemill.stages.data.conversations.samples import Run, Sample, Samples, merged, of_rows
from tunemill.stages.data.engines.encoded import Engine
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.rows.columns import offsets_of_lengths
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.token_rows import Int32s

NO_TOKENS = np.empty(0, np.int32)


class Encoder:
    """Makes tokens of examples with an engine. `reference` is the same tokenizer, for single texts."""

    def __init__(self, reference: Reference, eos_id: int | None) -> None:
        self.reference = reference
        self.engine: Engine = reference
        self.opening = np.array(reference.opening, np.int32)
        """What the tokenizer puts before a text: BOS, where it has one."""
        self.end = np.array(reference.closing if eos_id is None else [eos_id], np.int32)
        """What ends a text: EOS, whatever else the tokenizer would put there."""
        self.end_bytes = self.end.tobytes()

    def using(self, engine: Engine) -> "Encoder":
        """The same with another engine."""
        made = copy(self)
        made.engine = engine
        return made

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a text without BOS and EOS."""
        return list(self.reference.bare.encode(text, add_special_tokens=False).ids)

    def offsets_of(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same ids, and the characters of each: its first, and the one after its last."""
        found = self.reference.bare.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)

    def encode(self, examples: Sequence[Example], ends: Ends | None) -> Samples:
        """One sample per example; `ends` is needed where there are conversations."""
        conversations: list[int] = []
        segmented: list[int] = []
        tokenized: list[int] = []
        kinds = {Conversation: conversations, TokenConversation: tokenized, Tokens: tokenized}
        for index, example in enumerate(examples):
            kinds.get(type(example), segmented).append(index)
        parts: list[tuple[list[int], Samples]] = []
        if conversations:
            assert ends is not None
            chosen = [e for e in examples if isinstance(e, Conversation)]
            spanned = self.engine.spans([conversation.text for conversation in chosen])
            parts.append((conversations, label(spanned, chosen, ends)))
        if segmented:
            parts.append((segmented, self._of_segments([examples[index] for index in segmented])))
        if tokenized or not parts:
            parts.append((tokenized, of_rows([_sample_of(examples[index], ends) for index in tokenized])))
        return merged(parts, len(examples))

    def _of_segments(self, examples: Sequence[Example]) -> Samples:
        rows = [_segments(example) for example in examples]
        pieces = iter(self._pieces([segment for row in rows for segment in row]))
        joined = _joined([[(segment, *next(pieces)) for segment in row] for row in rows], self.opening)
        if not any(isinstance(example, Limited) for example in examples):
            return joined
        cut = [
            _cut(sample, len(example.first), example.limit) if isinstance(example, Limited) else sample
            for example, sample in zip(examples, joined, strict=True)
        ]
        return of_rows(cut)

    def _pieces(self, segments: list[Segment]) -> list[tuple[Int32s, int]]:
        """Tokens of each segment with its end, and how many of them are not trained on.

        An empty text has none, not even an end.
        """
        beginnings = sorted({segment.masked for segment in segments} - {""})
        encoded = list(self.engine.ids([*(segment.text for segment in segments), *beginnings]))
        lengths = {text: len(ids) for text, ids in zip(beginnings, encoded[len(segments) :], strict=True)}
        return [
            (self._with_end(ids, segment.eos) if segment.text else NO_TOKENS, lengths.get(segment.masked, 0))
            for segment, ids in zip(segments, encoded, strict=False)
        ]

    def _with_end(self, ids: Int32s, count: int) -> Int32s:
        size = len(self.end)
        if not size or not count:
            return ids
        there = ids[-size:].tobytes() == self.end_bytes
        return np.concatenate([ids, *[self.end] * (count - there)])


def _sample_of(example: Example, ends: Ends | None) -> Sample:
    """The sample of an example that is tokens already."""
    if isinstance(example, TokenConversation):
        assert ends is not None
        return Sample(example.ids, *label_tokens(example, ends))
    assert isinstance(example, Tokens)
    return Sample(example.ids, example.labels, [Run("tokens", 0, len(example.ids))])


def _segments(example: Example) -> tuple[Segment, ...]:
    """The segments that an example is made of."""
    if isinstance(example, Limited):
        return example.segments
    assert isinstance(example, tuple)
    return example


def _joined(rows: Sequence[Sequence[tuple[Segment, Int32s, int]]], opening: Int32s) -> Samples:
    """Rows of the segments' tokens, `opening` before each that asks for BOS and does not bring it along.

    Where such a segment has no tokens, BOS goes before the next one that has some. Of each segment there are its
    tokens and how many of them are not trained on.
    """
    opening_bytes = opening.tobytes()
    parts: list[Int32s] = []
    # Of each part in turn, how many of its tokens are masked, and how many of them are trained on.
    counts: list[int] = []
    names: dict[str, int] = {}
    roles: list[int] = []
    run_ends: list[int] = []
    last_labels: list[tuple[int, int]] = []
    lengths: list[int] = []
    total = 0
    for row in rows:
        length = 0
        # What a segment without tokens left to the next one: BOS, not trained on.
        left = False
        for segment, ids, masked in row:
            bos = segment.bos or left
            own = len(ids)
            missing = bos and own and len(opening) and ids[: len(opening)].tobytes() != opening_bytes
            before = len(segment.before)
            if before:
                parts.append(np.array(segment.before, np.int32))
            if missing:
                parts.append(opening)
                own += len(opening)
            parts.append(ids)
            size = before + own
            untrained = before + masked + (len(opening) if missing and (left or masked) else 0)
            untrained = min(untrained, size) if segment.trained else size
            counts += (untrained, size - untrained)
            left = bos and not len(ids)
            length += size
            roles.append(names.setdefault(segment.role, len(names)))
            run_ends.append(length)
            if segment.last_label is not None and size:
                last_labels.append((total + length - 1, segment.last_label))
        lengths.append(length)
        total += length
    ids = np.concatenate(parts) if parts else NO_TOKENS
    trained = np.repeat(np.tile([False, True], len(counts) // 2), counts)
    labels = np.where(trained, ids, np.int32(IGNORED))
    for place, value in last_labels:
        labels[place] = value
    return Samples(
        ids,
        labels,
        offsets_of_lengths(lengths),
        tuple(names),
        np.array(roles, np.int64),
        np.array(run_ends, np.int64),
        offsets_of_lengths([len(row) for row in rows]),
    )


def _cut(sample: Sample, first: int, limit: int) -> Sample:
    """The sample without what follows its segment number `first` by more than `limit` tokens."""
    end = min(len(sample.ids), limit + (sample.runs[first - 1].end if first else 0))
    runs = [Run(run.role, min(run.start, end), min(run.end, end)) for run in sample.runs]
    return Sample(sample.ids[:end], sample.labels[:end], runs)
