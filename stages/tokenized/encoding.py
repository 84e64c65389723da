"""Examples to token ids and labels, a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tunemill.stages.tokenized.example import Conversation, Ends, Example, Segment, Tokens
from tunemill.stages.tokenized.masks import IGNORED, Run, label


@dataclass(frozen=True)
class Sample:
    """Token ids and labels of one row, and which role each run of tokens belongs to."""

    ids: list[int]
    labels: list[int]
    runs: list[Run]

    @property
    def trained_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


class Encoder:
    """A tokenizer twice: `full` puts BOS and what else belongs around a text, `bare` nothing.

    Neither truncates nor pads. The offsets of `bare` cover white space: some tokenizers' post-processors
    would trim them.
    """

    def __init__(self, tokenizer: Tokenizer, eos_id: int | None) -> None:
        self.full = Tokenizer.from_str(tokenizer.to_str())
        self.bare = Tokenizer.from_str(tokenizer.to_str())
        for copy in (self.full, self.bare):
            copy.no_truncation()
            copy.no_padding()
        self.bare.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
        self.eos_id = eos_id

    def ids_of(self, text: str) -> list[int]:
        """Token ids of a text without BOS and EOS."""
        return list(self.bare.encode(text, add_special_tokens=False).ids)

    def encode(self, examples: Sequence[Example], ends: Ends | None) -> list[Sample]:
        """One sample per example; `ends` is needed where there are conversations."""
        conversations = [example for example in examples if isinstance(example, Conversation)]
        encoded = iter(self.bare.encode_batch([c.text for c in conversations], add_special_tokens=False))
        segments = [s for example in examples if isinstance(example, tuple) for s in example]
        pieces = iter(self._encode_segments(segments))
        samples = []
        for example in examples:
            if isinstance(example, Conversation):
                assert ends is not None
                samples.append(Sample(*label(next(encoded), example, ends)))
            elif isinstance(example, Tokens):
                samples.append(Sample(example.ids, example.labels, [Run("tokens", 0, len(example.ids))]))
            else:
                samples.append(_joined(example, [next(pieces) for _ in example]))
        return samples

    def _encode_segments(self, segments: list[Segment]) -> list[list[int]]:
        """Token ids of each segment; an empty text has none, not even BOS and EOS."""
        pieces: list[list[int]] = [[] for _ in segments]
        for bos, tokenizer in ((True, self.full), (False, self.bare)):
            chosen = [i for i, segment in enumerate(segments) if segment.bos == bos and segment.text]
            texts = [segments[i].text for i in chosen]
            for i, encoding in zip(
                chosen, tokenizer.encode_batch_fast(texts, add_special_tokens=bos), strict=True
            ):
                pieces[i] = self._with_eos(encoding.ids) if segments[i].eos else encoding.ids
        return pieces

    def _with_eos(self, ids: list[int]) -> list[int]:
        return ids if self.eos_id is None or ids[-1:] == [self.eos_id] else [*ids, self.eos_id]


def _joined(segments: Sequence[Segment], pieces: Sequence[list[int]]) -> Sample:
    ids: list[int] = []
    labels: list[int] = []
    runs: list[Run] = []
    for segment, piece in zip(segments, pieces, strict=True):
        runs.append(Run(segment.role, len(ids), len(ids) + len(piece)))
        ids.extend(piece)
        labels.extend(piece if segment.trained else [IGNORED] * len(piece))
        if segment.last_label is not None and piece:
            labels[-1] = segment.last_label
    return Sample(ids, labels, runs)
