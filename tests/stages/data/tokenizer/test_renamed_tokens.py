"""`added_tokens_overrides`: an added token keeps its id and gets another text."""

from pathlib import Path

import pytest
from support.tiny_model import Heard, workspace
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.tokenizer.body import tokenizer
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.errors import SettingError


def run(tmp_path: Path, texts: dict[int, str]) -> Path:
    out = workspace(tmp_path / "out")
    config = TokenizerConfig(
        tokenizer_config=str(make_tokenizer(tmp_path / "words")), added_tokens_overrides=texts
    )
    tokenizer(config, upstream=None, out=out, report=Heard().report)
    return out.data


def test_the_id_stays_and_the_text_is_one_token(tmp_path: Path) -> None:
    before = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path / "plain"))
    words = AutoTokenizer.from_pretrained(run(tmp_path, {0: "<tool>", 2: "<|end|>"}))
    assert words.encode("a<tool>b<|end|>") == [*before.encode("a"), 0, *before.encode("b"), 2]
    assert len(words) == len(before) and (words.eos_token_id, words.pad_token_id) == (2, 0)
    assert words.decode([2]) == "<|end|>"
    assert len(words.encode("<|im_end|>")) > 1, "the old text is text"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({50: "<tool>"}, "50 is not the id of an added token; these are 0, 1, 2"),
        ({0: "<|im_end|>"}, "is a token already, with the id 2"),
        ({0: "<x>", 1: "<x>"}, "gives two ids one text"),
    ],
)
def test_what_cannot_be_renamed(tmp_path: Path, texts: dict[int, str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        run(tmp_path, texts)
