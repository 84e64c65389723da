"""A tokenizer with BOS and EOS, as the stage saves it, and named templates rendered with it."""

import pytest
from support.rows import run_stage
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.conversations.chat_template import template_text
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    base = make_tokenizer(folder / "base")
    config = TokenizerConfig(
        base_model=str(base), special_tokens={"bos_token": "<s>", "eos_token": "</s>"}, chat_template="chatml"
    )
    saved, _ = run_stage(TOKENIZER, config, folder / "out", upstream=None)
    return AutoTokenizer.from_pretrained(saved.path)


@pytest.fixture
def render(tokenizer):
    def rendered(name, messages, **variables):
        variables = {"date_string": "31 Jan 2026", **variables}
        return tokenizer.apply_chat_template(
            messages, chat_template=template_text(name), tokenize=False, **variables
        )

    return rendered
