"""The tokenizer stage saves a tokenizer that transformers loads, the same bytes every time."""

import contextlib
import json
import shutil

import pytest
from pydantic import ValidationError
from support.rows import files_of, run_stage
from support.tiny_tokenizer import CHATML as TINY_TEMPLATE
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.artifacts import Model
from tunemill.stages.data.conversations.chat_template import template_text
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import SettingError, SourceError

CHATML = template_text("chatml")
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


@pytest.fixture
def base(tmp_path):
    return make_tokenizer(tmp_path / "base")


@pytest.fixture
def without_template(base):
    (base / "chat_template.jinja").unlink()
    return base


def save(tmp_path, *, upstream=None, name="out", **config):
    return run_stage(TOKENIZER, TokenizerConfig(**config), tmp_path / name, upstream=upstream)


def edit(folder, **settings):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


def test_it_is_the_same_tokenizer(tmp_path, base):
    saved, events = save(tmp_path, base_model=str(base))
    given, loaded = AutoTokenizer.from_pretrained(base), AutoTokenizer.from_pretrained(saved.path)
    text = "<|im_start|>The capital of Zürich 😀<|im_end|>"
    assert loaded.encode(text) == given.encode(text)
    assert (loaded.eos_token, loaded.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert loaded.chat_template == TINY_TEMPLATE
    assert events.summary["tokens_added"] == 0


def test_the_same_bytes_wherever_it_lies(tmp_path, base):
    elsewhere = shutil.copytree(base, tmp_path / "else" / "where")
    edit(elsewhere, name_or_path="/home/someone/model")
    settings = {"tokens": ["<think>"], "chat_template": "chatml"}
    one, _ = save(tmp_path, base_model=str(base), name="one", **settings)
    other, _ = save(tmp_path, base_model=str(elsewhere), name="other", **settings)
    assert files_of(one) == files_of(other)
    assert not {"is_local", "local_files_only"} & set(json.loads(files_of(one)["tokenizer_config.json"]))
    assert not [name for name, data in files_of(one).items() if str(tmp_path).encode() in data]


def test_tokenizer_config_wins_over_upstream_which_wins_over_base_model(tmp_path, base):
    other = shutil.copytree(base, tmp_path / "other")
    edit(other, model_max_length=77)
    save(tmp_path, base_model=str(base), upstream=Model(other), name="a")
    assert AutoTokenizer.from_pretrained(tmp_path / "a" / "data").model_max_length == 77
    save(tmp_path, tokenizer_config=str(base), upstream=Model(other), name="b")
    assert AutoTokenizer.from_pretrained(tmp_path / "b" / "data").model_max_length == 131072


def test_added_tokens_are_one_token_each(tmp_path, base):
    special = {"bos_token": "<bos>", "additional_special_tokens": ["<tool>"]}
    saved, events = save(
        tmp_path, base_model=str(base), special_tokens=special, tokens=["<think>", "</think>"]
    )
    loaded = AutoTokenizer.from_pretrained(saved.path)
    assert loaded.bos_token_id == loaded.convert_tokens_to_ids("<bos>")
    for token in ("<bos>", "<tool>", "<think>", "</think>"):
        assert len(loaded.encode(token, add_special_tokens=False)) == 1
    assert events.summary["tokens_added"] == 4
    assert events.summary["vocabulary"] == len(loaded)


def test_the_pad_token_falls_back_to_eos_and_says_so(tmp_path, base):
    edit(base, pad_token=None)
    saved, events = save(tmp_path, base_model=str(base))
    loaded = AutoTokenizer.from_pretrained(saved.path)
    assert loaded.pad_token_id == loaded.eos_token_id
    assert "no pad token: the EOS token <|im_end|> is used" in events.logs


def test_neither_pad_nor_eos(tmp_path, base):
    edit(base, pad_token=None, eos_token=None)
    with pytest.raises(SettingError, match="neither a pad nor an EOS token; set special_tokens: pad_token"):
        save(tmp_path, base_model=str(base))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, None),
        ({"chat_template": "chatml"}, CHATML),
        ({"chat_template": "tokenizer_default_fallback_chatml"}, CHATML),
        (
            {"chat_template": "jinja", "chat_template_jinja": "{{ messages }}<|im_end|>"},
            "{{ messages }}<|im_end|>",
        ),
        ({"chat_template_jinja": "{{ messages }}<|im_end|>"}, "{{ messages }}<|im_end|>"),
    ],
)
def test_chat_template(tmp_path, without_template, settings, expected):
    saved, _ = save(tmp_path, base_model=str(without_template), **settings)
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == expected


def test_the_fallback_leaves_a_template_that_is_there(tmp_path, base):
    saved, _ = save(tmp_path, base_model=str(base), chat_template="tokenizer_default_fallback_chatml")
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == TINY_TEMPLATE


def test_chatml_renders_as_chatml(tmp_path, without_template):
    saved, _ = save(tmp_path, base_model=str(without_template), chat_template="chatml")
    loaded = AutoTokenizer.from_pretrained(saved.path)
    expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"
    assert loaded.apply_chat_template(MESSAGES, tokenize=False) == expected
    prompt = loaded.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_of_several_named_templates_the_default_is_used(tmp_path, base):
    (base / "chat_template.jinja").unlink()
    named = [{"name": "default", "template": "{{ messages }}D"}, {"name": "rag", "template": "R"}]
    edit(base, chat_template=named)
    saved, events = save(tmp_path, base_model=str(base))
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == "{{ messages }}D"
    assert (
        "the model also has a chat template named rag, and `default` is used. To use rag, set" in events.logs
    )
    assert "chat_template_jinja to its text, or to a file that you save it in" in events.logs
    _, events = save(tmp_path, name="chosen", base_model=str(base), chat_template="chatml")
    assert "also has a chat template" not in events.logs


def test_another_template_of_the_model_is_said_and_can_be_used(tmp_path, base):
    file = base / "additional_chat_templates" / "tool_use.jinja"
    file.parent.mkdir()
    file.write_text("{{ tools }}{{ messages }}T")
    saved, events = save(tmp_path, base_model=str(base))
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == TINY_TEMPLATE
    assert (
        "To use tool_use, set chat_template: jinja and chat_template_jinja to the path of "
        "additional_chat_templates/tool_use.jinja of the model" in events.logs
    )
    text = file.read_text()
    saved, events = save(
        tmp_path, name="tools", base_model=str(base), chat_template="jinja", chat_template_jinja=text
    )
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == text
    assert "also has a chat template" not in events.logs


def test_named_templates_without_a_default(tmp_path, base):
    (base / "chat_template.jinja").unlink()
    edit(base, chat_template=[{"name": "rag", "template": "R"}])
    reason = r"templates named \['rag'\] and no default; give the one you want in chat_template_jinja"
    for number, choice in enumerate(({}, {"chat_template": "tokenizer_default"})):
        with pytest.raises(SettingError, match=reason):
            save(tmp_path, name=f"refused{number}", base_model=str(base), **choice)
    text = "{{ messages }}R"
    saved, _ = save(tmp_path, name="given", base_model=str(base), chat_template_jinja=text)
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == text
    saved, _ = save(tmp_path, name="named", base_model=str(base), chat_template="chatml")
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == CHATML


def test_tokenizer_default_without_a_template(tmp_path, without_template):
    with pytest.raises(SettingError, match=r"it has none; choose a named one such as chat_template: chatml"):
        save(tmp_path, base_model=str(without_template), chat_template="tokenizer_default")


def test_a_broken_template(tmp_path, base):
    with pytest.raises(SettingError, match="not Jinja: line 2"):
        save(tmp_path, base_model=str(base), chat_template_jinja="{% for m in messages %}\n{% endfro %}")


def test_the_generation_tag_of_transformers_is_jinja_too(tmp_path, base):
    text = (
        "{% for m in messages %}{%- generation -%}{{ m['content'] }}{% endgeneration %}{% endfor %}<|im_end|>"
    )
    saved, _ = save(tmp_path, base_model=str(base), chat_template_jinja=text)
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == text


def test_an_eos_token_that_the_template_lacks_is_mentioned(tmp_path, base):
    _, events = save(tmp_path, base_model=str(base), special_tokens={"eos_token": "</s>"})
    assert "the EOS token </s> does not occur in the chat template" in events.logs
    assert (
        "an answer ends with <|im_end|>: set special_tokens: eos_token (and eot_tokens) to it" in events.logs
    )


def test_markers_that_the_tokenizer_splits_are_mentioned(tmp_path, base):
    _, events = save(
        tmp_path, base_model=str(base), chat_template="gemma", special_tokens={"bos_token": "<s>"}
    )
    assert (
        "the chat template gemma marks turns with <start_of_turn> and <end_of_turn>, which this tokenizer splits into "
        "several tokens each; add them under tokens:, or choose a template that was made for this model"
    ) in events.logs
    assert "<|im_end|> does not occur in the chat template gemma, so" in events.logs
    tokens = ["<start_of_turn>", "<end_of_turn>"]
    special = {"eos_token": "<end_of_turn>"}
    _, events = save(
        tmp_path, base_model=str(base), name="b", chat_template="gemma", tokens=tokens, special_tokens=special
    )
    assert events.logs == ""


def test_only_the_markers_of_a_plain_conversation_count(tmp_path, base):
    """Not those of tools and of reasoning, which the template writes for other conversations."""
    _, events = save(tmp_path, base_model=str(base), chat_template="qwen_25")
    assert events.logs == ""


def test_a_template_that_fits_no_conversation_here_is_kept(tmp_path, base):
    text = "{{ raise_exception('only for poems') }}<|im_end|>"
    saved, events = save(tmp_path, base_model=str(base), chat_template_jinja=text)
    assert AutoTokenizer.from_pretrained(saved.path).chat_template == text
    assert events.logs == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"chat_template": "lama3"},
            r"must be one of \d+ values, which `tunemill schema` lists; close to it are llama3, ",
        ),
        ({"chat_template": "tokenizer_default_fallback_jinja"}, r"must be one of \d+ values"),
        (
            {"chat_template": "jinja"},
            "needs the template in chat_template_jinja: its text, or the path of a file",
        ),
        (
            {"chat_template": "chatml", "chat_template_jinja": "{{ x }}"},
            "only used with chat_template: jinja",
        ),
        (
            {"chat_template_jinja": "./my.jinja"},
            r"'./my.jinja' is neither the text .* nor the path of a file that is there",
        ),
        ({"tokens": [""]}, "empty string"),
        ({"special_tokens": {"cls_token": "x"}}, "cls_token"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        TokenizerConfig(base_model="model", **settings)


def test_a_missing_folder(tmp_path):
    with pytest.raises(SourceError, match="nowhere is not a folder"):
        save(tmp_path, base_model=str(tmp_path / "nowhere"))


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=r"holds no tokenizer \(tokenizer.json, or another file"):
        save(tmp_path, base_model=str(tmp_path / "empty"))


def test_no_tokenizer_at_all(tmp_path):
    with pytest.raises(SettingError, match="set base_model or tokenizer_config"):
        save(tmp_path)


@pytest.mark.parametrize("name", ["AutoTokenizer", "PreTrainedTokenizerFast", "PreTrainedTokenizer"])
def test_the_class_may_be_named(tmp_path, base, name):
    save(tmp_path, base_model=str(base), tokenizer_type=name)


def test_another_class_is_refused(tmp_path, base):
    with pytest.raises(SettingError, match=r"tokenizer_type: LlamaTokenizer: .* say PreTrainedTokenizer"):
        save(tmp_path, base_model=str(base), tokenizer_type="LlamaTokenizer")


def test_the_template_may_stay_in_the_settings(tmp_path, base):
    plain, _ = save(tmp_path, base_model=str(base), name="plain")
    inside, _ = save(tmp_path, base_model=str(base), name="inside", tokenizer_save_jinja_files=False)
    assert (plain.path / "chat_template.jinja").exists() and not (
        inside.path / "chat_template.jinja"
    ).exists()
    stored = json.loads((inside.path / "tokenizer_config.json").read_text())["chat_template"]
    assert stored == (plain.path / "chat_template.jinja").read_text()


def test_what_needs_another_tokenizer_is_refused():
    with pytest.raises(ValidationError, match="Tunemill needs one to know which tokens stand for which"):
        TokenizerConfig(base_model="/model", tokenizer_use_fast=False)


@pytest.mark.parametrize("setting", [{"tokenizer_use_fast": True}, {"tokenizer_use_mistral_common": False}])
def test_what_happens_anyway_is_noted(setting):
    config = TokenizerConfig(base_model="/model", **setting)
    assert [item.key for item in config.idle()] == list(setting)
    assert config.semantic() == TokenizerConfig(base_model="/model").semantic()


def test_code_of_a_tokenizer_is_never_run(tmp_path, base):
    folder = shutil.copytree(base, tmp_path / "own")
    edit(folder, auto_map={"AutoTokenizer": ["own.Own", None]}, tokenizer_class="Own")
    (folder / "own.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    with contextlib.suppress(SourceError):
        save(tmp_path, base_model=str(folder), name="out")
    assert not (tmp_path / "was_run").exists()
