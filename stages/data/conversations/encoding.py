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
        self.eos_id = eos_id

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
                sample = _joined(segments, [next(pieces) for _ in segments])
                if isinstance(example, Limited):
                    sample = _cut(sample, len(example.first), example.limit)
                samples.append(sample)
        return samples

    def _encode_segments(self, segments: list[Segment]) -> list[Piece]:
        """Tokens of each segment; an empty text has none, not even BOS and EOS."""
        pieces = [Piece([], 0) for _ in segments]
        for bos, tokenizer in ((True, self.full), (False, self.bare)):
            chosen = [i for i, segment in enumerate(segments) if segment.bos == bos and segment.text]
            beginnings = sorted({segments[i].masked for i in chosen} - {""})
            texts = [*(segments[i].text for i in chosen), *beginnings]
            encoded = [item.ids for item in tokenizer.encode_batch_fast(texts, add_special_tokens=bos)]
            lengths = {text: len(ids) for text, ids in zip(beginnings, encoded[len(chosen) :], strict=True)}
            for i, ids in zip(chosen, encoded, strict=False):
                pieces[i] = Piece(self._with_eos(ids, segments[i].eos), lengths.get(segments[i].masked, 0))
        return pieces

    def _with_eos(self, ids: list[int], count: int) -> list[int]:
        if self.eos_id is None or not count:
            return ids
        return [*ids, *[self.eos_id] * (count - (ids[-1:] == [self.eos_id]))]


def _segments(example: Example) -> tuple[Segment, ...]:
    """The segments that an example is made of, none where it is something else."""
    if isinstance(example, Limited):
        return example.segments
    return example if isinstance(example, tuple) else ()


def _joined(segments: Sequence[Segment], pieces: Sequence[Piece]) -> Sample:
    ids: list[int] = []
    labels: list[int] = []
    runs: list[Run] = []
    for segment, piece in zip(segments, pieces, strict=True):
        tokens = [*segment.before, *piece.ids]
        masked = len(segment.before) + piece.masked if segment.trained else len(tokens)
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
