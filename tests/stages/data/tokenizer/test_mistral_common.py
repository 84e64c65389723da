"""`tokenizer_use_mistral_common`: a tokenizer made of a tekken.json, and what does not go with it."""

import json
import shutil
import sys

import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from pydantic import ValidationError
from support.rows import files_of, run_stage
from support.tekken import tekken, write_tekken
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoTokenizer

from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import SourceError

TEXT = "hello  Zürich, 1234\n\nworld"
KEY = "tokenizer_use_mistral_common"


@pytest.fixture
def base(tmp_path):
    return write_tekken(tmp_path / "base")


def save(tmp_path, base, name="out", **config):
    config = TokenizerConfig(base_model=str(base), tokenizer_use_mistral_common=True, **config)
    return run_stage(TOKENIZER, config, tmp_path / name, upstream=None)


def test_auto_tokenizer_gives_the_ids_of_mistral_common(tmp_path, base):
    saved, events = save(tmp_path, base)
    loaded = AutoTokenizer.from_pretrained(saved.path)
    own = MistralTokenizer.from_file(base / "tekken.json").instruct_tokenizer.tokenizer
    assert loaded.encode(TEXT) == own.encode(TEXT, bos=True, eos=False)
    assert loaded.decode(loaded.encode(TEXT)[1:]) == TEXT
    assert (loaded.bos_token, loaded.eos_token, loaded.pad_token) == ("<s>", "</s>", "<pad>")
    assert events.summary["vocabulary"] == len(loaded) == own.n_words
    assert saved.tekken.read_bytes() == (base / "tekken.json").read_bytes() and saved.is_mistral


def test_the_same_bytes_wherever_it_lies(tmp_path, base):
    one, _ = save(tmp_path, base, "one")
    other, _ = save(tmp_path, shutil.copytree(base, tmp_path / "else" / "where"), "other")
    assert files_of(one) == files_of(other)


def test_another_tokenizer_beside_it_does_not_count(tmp_path, base):
    alone, _ = save(tmp_path, base, "alone")
    make_tokenizer(base)
    beside, _ = save(tmp_path, base, "beside")
    assert files_of(alone)["tokenizer.json"] == files_of(beside)["tokenizer.json"]
    assert (beside.path / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    assert not (alone.path / "chat_template.jinja").exists()


def test_old_files_leave_their_special_tokens_to_mistral_common(tmp_path):
    old = tekken("v3")
    names = [token["token_str"] for token in old.pop("special_tokens")]
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "tekken.json").write_text(json.dumps(old))
    saved, _ = save(tmp_path, tmp_path / "base")
    loaded = AutoTokenizer.from_pretrained(saved.path)
    assert loaded.convert_ids_to_tokens([1, 3, 11, 19]) == [names[number] for number in (1, 3, 11, 19)]
    assert loaded.convert_ids_to_tokens(20) == "<SPECIAL_20>"


def without(file, *place):
    """The file with one thing taken out."""
    *above, last = place
    inner = file
    for name in above:
        inner = inner[name]
    inner.pop(last)
    return file


@pytest.mark.parametrize(
    "damaged",
    [
        without(tekken(), "config"),
        without(tekken(), "vocab", 3),
        {**tekken(), "special_tokens": []},
        [],
        None,
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, base, damaged):
    (base / "tekken.json").write_text(json.dumps(damaged))
    with pytest.raises(SourceError, match=r"tekken\.json is no tokenizer that mistral-common reads"):
        save(tmp_path, base)


def test_a_folder_without_the_file(tmp_path):
    config = {"base_model": str(make_tokenizer(tmp_path / "base")), KEY: True}
    (fault,) = TokenizerConfig(**config).faults()
    assert fault.key == "base_model" and "holds no tekken.json" in fault.reason
    (tmp_path / "base" / "tokenizer.model.v3").touch()
    with pytest.raises(
        SourceError, match=r"holds no tekken\.json.*\(tokenizer\.model\.v3 is one of sentencepiece"
    ):
        save(tmp_path, tmp_path / "base")


def test_a_folder_with_nothing_else_asks_for_the_key(base):
    (fault,) = TokenizerConfig(base_model=str(base)).faults()
    assert "set tokenizer_use_mistral_common: true" in fault.reason
    assert not list(TokenizerConfig(base_model=str(base), tokenizer_use_mistral_common=True).faults())


def test_the_extra_is_named_where_the_package_is_missing(base, monkeypatch):
    # Python's own way to say that there is no such module.
    monkeypatch.setitem(sys.modules, "mistral_common", None)
    (fault,) = TokenizerConfig(base_model=str(base), tokenizer_use_mistral_common=True).faults()
    assert fault.key == KEY and "pip install 'tunemill[mistral]'" in fault.reason


@pytest.mark.parametrize(
    "setting",
    [
        {"special_tokens": {"pad_token": "<pad>"}},
        {"tokens": ["<new>"]},
        {"added_tokens_overrides": {7: "<new>"}},
        {"chat_template": "mistral_v7_tekken"},
        {"chat_template_jinja": "{{ messages }}"},
        {"tokenizer_type": "LlamaTokenizer"},
        {"tokenizer_legacy": True},
    ],
)
def test_what_does_not_go_with_it(setting):
    (key,) = setting
    with pytest.raises(ValidationError, match=f"{key} does not go with {KEY}: true"):
        TokenizerConfig(base_model="/model", tokenizer_use_mistral_common=True, **setting)
    TokenizerConfig(base_model="/model", tokenizer_use_mistral_common=False, **setting)


def test_the_key_and_the_library_enter_the_key():
    with_key, without = (TokenizerConfig(base_model="/model", **{KEY: value}) for value in (True, False))
    assert (with_key.used_libraries(), without.used_libraries()) == (("mistral-common",), ())
    assert with_key.semantic()[KEY] is True and KEY not in without.semantic()


def test_preference_data_is_refused():
    with pytest.raises(ValidationError, match=f"{KEY}: true does not go with preference data"):
        PreferencesConfig(rl="dpo", type="chat_template.default", tokenizer_use_mistral_common=True)
