"""What a vocabulary covers of the rows: unknown text, single bytes, and the tokens that occur."""

import numpy as np
import pytest
from support.tiny_tokenizer import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers

from tunemill.stages.data.tokenized.coverage import Coverage, byte_characters

FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]


def counts(tokenizer, *texts):
    coverage = Coverage(tokenizer)
    for text in texts:
        coverage.add(np.array(tokenizer.encode(text).ids, np.int32))
    return [(figure.count, figure.of) for figure in coverage.figures()]


def words(model):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"),  # noqa: S106
        models.WordPiece({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"),  # noqa: S106
        models.BPE({"<unk>": 0, "a": 1, "b": 2}, [], unk_token="<unk>"),  # noqa: S106
        models.Unigram([("<unk>", 0.0), ("a", -1.0), ("b", -1.0)], unk_id=0),
    ],
)
def test_text_that_the_vocabulary_lacks(model):
    assert counts(words(model), "a x a", "y") == [(2, 4), (0, 4), (2, 3)]


def test_a_vocabulary_without_a_token_for_unknown_text():
    assert counts(words(models.BPE({"a": 0, "b": 1}, [])), "a a") == [(0, 2), (0, 2), (1, 2)]


def test_characters_that_fall_back_to_bytes():
    vocabulary = {token: number for number, token in enumerate([*FALLBACK, "<unk>", "a", "\n"])}
    tokenizer = words(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))  # noqa: S106
    # An emoji is four bytes; of `&`, which is missing too, the byte is the character.
    assert counts(tokenizer, "a 😀", "&") == [(0, 6), (4, 6), (6, 259)]


def test_bytes_of_byte_level_tokenizers(tmp_path):
    tokenizer = Tokenizer.from_file(str(make_tokenizer(tmp_path) / "tokenizer.json"))
    assert set(byte_characters()) < set(pre_tokenizers.ByteLevel.alphabet())
    found = tokenizer.encode("é😀").tokens
    assert set(found) <= set(byte_characters()) and len(found) == 6
    assert counts(tokenizer, "capital é😀")[1][0] == 6
    assert counts(tokenizer, "The capital of France!\n\t~")[1][0] == 0
