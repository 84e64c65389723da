"""Chat templates in files: marks, other encodings and ends of lines, wherever the template lies."""

import json

import pytest
from support.rows import run_stage
from support.tiny_tokenizer import CHATML, make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import SourceError

MARK = "\ufeff"
MESSAGES = [{"role": "user", "content": "hi"}]
PLACES = ("chat_template.jinja", "tokenizer_config.json", "text in tokenizer_config.json", "tokenizer.json")


@pytest.fixture
def base(tmp_path):
    return make_tokenizer(tmp_path / "base")


def into_config(folder, template):
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": template}))


def saved(tmp_path, base):
    tokenizer, _ = run_stage(
        TOKENIZER, TokenizerConfig(base_model=str(base)), tmp_path / "out", upstream=None
    )
    return AutoTokenizer.from_pretrained(tokenizer.path)


@pytest.mark.parametrize("place", PLACES)
def test_a_mark_is_dropped_wherever_it_stands(tmp_path, base, place):
    if place.startswith("text"):
        into_config(base, MARK + CHATML)
    else:
        if place == "tokenizer_config.json":
            into_config(base, CHATML)
        (base / place).write_bytes(MARK.encode() + (base / place).read_bytes())
    loaded = saved(tmp_path, base)
    assert loaded.chat_template == CHATML
    assert loaded.apply_chat_template(MESSAGES, tokenize=False) == "<|im_start|>user\nhi<|im_end|>\n"


def test_lines_of_windows_render_the_same(tmp_path, base):
    file = base / "chat_template.jinja"
    lines = file.read_text().replace("\\n", "\n")
    assert "\n" in lines
    file.write_bytes(lines.replace("\n", "\r\n").encode())
    rendered = saved(tmp_path, base).apply_chat_template(MESSAGES, tokenize=False)
    assert rendered == "<|im_start|>user\nhi<|im_end|>\n"


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/tool.jinja"])
def test_other_encodings_are_refused_in_check_too(tmp_path, base, name):
    file = base / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"{# a\n\xe9 #}{{ messages }}")
    reason = f"{file}, line 2: the byte 0xe9 is no UTF-8; save the file as UTF-8"
    with pytest.raises(SourceError) as raised:
        saved(tmp_path, base)
    assert str(raised.value) == reason
    assert [fault.reason for fault in TokenizerConfig(base_model=str(base)).faults()] == [reason]
