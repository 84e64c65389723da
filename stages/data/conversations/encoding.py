"""Examples to token ids and labels, a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tunemill.stages.data.conversations.example import (
    Conversation,
    Ends,
    Example,
    Limited,
    Segment,
    TokenConversation,
    Tokens,
)
from tunemill.stages.data.conversations.masks import Run, label, label_tokens
from tunemill.stages.data.rows.labels import IGNORED


@dataclass(frozen=True)
class Sample:
    """Token ids and labels of one row, and which role each run of tokens belongs to."""

    ids: list[int]
    labels: list[int]
    runs: list[Run]

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class Piece:
    """Tokens of a segment, of which the first `masked` are not trained on."""

    ids: list[int]
    masked: int


class Encoder:
    """A tokenizer twice: `full` puts BOS and what else belongs around a text, `bare` nothing.

    Neither truncates nor pads. The offsets of `bare` cover white space: some tokenizers' post-processors
    would trim them. `plain`: what looks like a special token is text, as in mistral-common.
    """

    def __init__(self, tokenizer: Tokenizer, eos_id: int | None, plain: bool = False) -> None:
        self.full = Tokenizer.from_str(tokenizer.to_str())
        self.bare = Tokenizer.from_str(tokenizer.to_str())
        for copy in (self.full, self.bare):
            copy.no_truncation()
            copy.no_padding()
            copy.encode_special_tokens = plain
        self.bare.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
        self.opening, closing = around(self.full, self.bare)
        """What the tokenizer puts before a text: BOS, where it has one."""
        self.end = closing if eos_id is None else [eos_id]
        """What ends a text: EOS, whatever else the tokenizer would put there."""

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a text without BOS and EOS."""
        return list(self.bare.encode(text, add_special_tokens=False).ids)

    def offsets_of(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The same ids, and the characters of each: its first, and the one after its last."""
        found = self.bare.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)

    def encode(self, examples: Sequence[Example], ends: Ends | None) -> list[Sample]:
        """One sample per example; `ends` is needed where there are conversations."""
        conversations = [example for example in examples if isinstance(example, Conversation)]
        encoded = iter(self.bare.encode_batch([c.text for c in conversations], add_special_tokens=False))
        pieces = iter(self._encode_segments([s for example in examples for s in _segments(example)]))
        samples = []
        for example in examples:
            if isinstance(example, Conversation):
                assert ends is not None
                samples.append(Sample(*label(next(encoded), example, ends)))
            elif isinstance(example, TokenConversation):
                assert ends is not None
                samples.append(Sample(example.ids, *label_tokens(example, ends)))
            elif isinstance(example, Tokens):
                samples.append(Sample(example.ids, example.labels, [Run("tokens", 0, len(example.ids))]))
            else:
                segments = _segments(example)
                sample = _joined(segments, [next(pieces) for _ in segments], self.opening)
                if isinstance(example, Limited):
                    sample = _cut(sample, len(example.first), example.limit)
                samples.append(sample)
        return samples

    def _encode_segments(self, segments: list[Segment]) -> list[Piece]:
        """Tokens of each segment with its end; an empty text has none, not even an end."""
        beginnings = sorted({segment.masked for segment in segments} - {""})
        texts = [*(segment.text for segment in segments), *beginnings]
        encoded = [item.ids for item in self.bare.encode_batch_fast(texts, add_special_tokens=False)]
        lengths = {text: len(ids) for text, ids in zip(beginnings, encoded[len(segments) :], strict=True)}
        return [
            Piece(self._with_end(ids, segment.eos) if segment.text else [], lengths.get(segment.masked, 0))
            for segment, ids in zip(segments, encoded, strict=False)
        ]

    def _with_end(self, ids: list[int], count: int) -> list[int]:
        if not self.end or not count:
            return ids
        return [*ids, *self.end * (count - (ids[-len(self.end) :] == self.end))]


def around(full: Tokenizer, bare: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer's post-processor puts before a text, and those behind it."""
    for text in ("a", *full.get_vocab()):
        length = len(bare.encode(text, add_special_tokens=False))
        if length:
            found = full.encode(text, add_special_tokens=True)
            first = found.sequence_ids.index(0)
            return found.ids[:first], found.ids[first + length :]
    return [], []


def _segments(example: Example) -> tuple[Segment, ...]:
    """The segments that an example is made of, none where it is something else."""
    if isinstance(example, Limited):
        return example.segments
    return example if isinstance(example, tuple) else ()


def _joined(segments: Sequence[Segment], pieces: Sequence[Piece], opening: list[int]) -> Sample:
    """The segments' tokens one after the other, `opening` before each that asks for BOS and does not bring it along.

    Where such a segment has no tokens, BOS goes before the next one that has some.
    """
    ids: list[int] = []
    labels: list[int] = []
    runs: list[Run] = []
    # What a segment without tokens left to the next one: BOS, not trained on.
    left: list[int] = []
    for segment, piece in zip(segments, pieces, strict=True):
        bos = opening if segment.bos else []
        missing = (left or bos) if piece.ids and piece.ids[: len(opening)] != opening else []
        tokens = [*segment.before, *missing, *piece.ids]
        masked = len(segment.before) + piece.masked
        if missing and (left or piece.masked):
            masked += len(missing)
        if not segment.trained:
            masked = len(tokens)
        left = [] if piece.ids else left or bos
        runs.append(Run(segment.role, len(ids), len(ids) + len(tokens)))
        ids.extend(tokens)
        labels.extend([IGNORED] * min(masked, len(tokens)))
        labels.extend(tokens[masked:])
        if segment.last_label is not None and tokens:
            labels[-1] = segment.last_label
    return Sample(ids, labels, runs)


def _cut(sample: Sample, first: int, limit: int) -> Sample:
    """The sample without what follows its segment number `first` by more than `limit` tokens."""
    end = min(len(sample.ids), limit + (sample.runs[first - 1].end if first else 0))
    runs = [Run(run.role, min(run.start, end), min(run.end, end)) for run in sample.runs]
    return Sample(sample.ids[:end], sample.labels[:end], runs)
