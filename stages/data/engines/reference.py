"""The `tokenizers` library: what all engines are measured by, and what every tokenizer can fall back to."""

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tunemill.stages.data.engines.encoded import Encoded, Spanned, flat

NOTHING_AROUND = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])


class Reference:
    """A copy of a tokenizer that neither truncates nor pads.

    The characters of its tokens cover white space: some tokenizers' post-processors would trim them. `plain`: what
    looks like a special token is text, as in mistral-common. `taken`: not a copy, which costs as much as loading a
    tokenizer does, but the given one, which from then on puts nothing around a text.
    """

    name = "tokenizers"

    def __init__(self, tokenizer: Tokenizer, plain: bool = False, *, taken: bool = False) -> None:
        self.bare = tokenizer if taken else Tokenizer.from_str(tokenizer.to_str())
        self.bare.no_truncation()
        self.bare.no_padding()
        self.bare.encode_special_tokens = plain
        self.opening, self.closing = around(self.bare)
        """What the tokenizer puts before a text, which is BOS where it has one, and behind it."""
        self.bare.post_processor = NOTHING_AROUND

    def ids(self, texts: Sequence[str]) -> Encoded:
        """Tokens of texts without BOS, EOS and the like."""
        encodings = self.bare.encode_batch_fast(list(texts), add_special_tokens=False)
        return flat([encoding.ids for encoding in encodings])

    def spans(self, texts: Sequence[str]) -> Spanned:
        """The tokens of `ids`, with their characters."""
        encodings = self.bare.encode_batch(list(texts), add_special_tokens=False)
        encoded = flat([encoding.ids for encoding in encodings])
        pairs = chain.from_iterable(chain.from_iterable(encoding.offsets for encoding in encodings))
        characters = np.fromiter(pairs, np.int32, 2 * len(encoded.ids))
        return Spanned(encoded.ids, encoded.offsets, characters[::2].copy(), characters[1::2].copy())


def around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The tokens that a tokenizer's post-processor puts before a text, and those behind it."""
    for text in _short_texts(tokenizer):
        length = len(tokenizer.encode(text, add_special_tokens=False))
        if length:
            found = tokenizer.encode(text, add_special_tokens=True)
            first = found.sequence_ids.index(0)
            return found.ids[:first], found.ids[first + length :]
    return [], []


def _short_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Of the first one nearly every tokenizer makes a token, and its vocabulary need not be listed."""
    yield "a"
    yield from tokenizer.get_vocab()
