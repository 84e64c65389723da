"""What is read of a tokenizer without transformers is what `AutoTokenizer` makes of it."""

import json
import shutil
from datetime import date

import pytest
from jinja2 import TemplateError
from support.formats import TOKENIZERS
from support.rows import run_stage
from support.tekken import write_tekken
from transformers import AutoTokenizer

from tunemill.stages.artifacts import TOKENIZER_FACTS, Tokenizer
from tunemill.stages.data.conversations.chat_template import NAMES, template_text
from tunemill.stages.data.conversations.encoding import Encoder
from tunemill.stages.data.conversations.loaded import load_to_encode, load_tokenizer
from tunemill.stages.data.conversations.template_body import renderer
from tunemill.stages.data.engines.reference import Reference
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.facts_body import write_facts
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.models.files import copy_tokenizer
from tunemill.stages.models.tokenizer_ids_body import FIXED_TEXT
from tunemill.stages.models.words_body import load_words

GOLDEN = sorted(path.name for path in TOKENIZERS.iterdir())
TEXTS = [
    "",
    "a",
    " a ",
    "\n\n\tx",
    "<s>hi</s>",
    "<|im_end|> <bos>",
    "1234567890",
    "Ünïcödé 👩‍👩‍👧 \u3000 \u200b",
    FIXED_TEXT,
]
TALK = [{"role": "user", "content": " Hi\n"}, {"role": "assistant", "content": "Ho <b> é"}]


@pytest.fixture(scope="module", params=[*GOLDEN, "more tokens", "tekken"])
def artifact(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    settings = {"base_model": str(TOKENIZERS / request.param), "special_tokens": {"pad_token": "<pad>"}}
    if request.param == "more tokens":
        settings |= {
            "base_model": str(TOKENIZERS / "llama3"),
            "special_tokens": {"eos_token": "<|im_end|>", "pad_token": "<|end_of_text|>"},
            "tokens": ["<|im_start|>", "<tool>"],
            "chat_template": "chatml",
        }
    if request.param == "tekken":
        settings = {"base_model": str(write_tekken(folder / "given")), "tokenizer_use_mistral_common": True}
    return run_stage(TOKENIZER, TokenizerConfig(**settings), folder / "out", upstream=None)[0]


def test_both_make_the_same_of_texts(artifact):
    light, theirs = load_tokenizer(artifact), load_words(artifact.path)
    assert light.given is None
    encoder = Encoder(Reference(light.backend_tokenizer), light.eos_token_id)
    for text in TEXTS:
        ids = theirs.encode(text, add_special_tokens=False)
        assert encoder.ids_of(text) == ids
        assert light.backend_tokenizer.encode(text).ids == theirs.encode(text)
        assert light.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)


def test_what_is_loaded_to_encode_is_not_copied_and_makes_the_same(artifact):
    (loaded, taken), copied = load_to_encode(artifact), Reference(load_tokenizer(artifact).backend_tokenizer)
    assert taken.bare is loaded.backend_tokenizer
    assert (taken.opening, taken.closing) == (copied.opening, copied.closing)
    assert json.loads(taken.bare.to_str()) == json.loads(copied.bare.to_str())
    assert not load_to_encode(artifact)[1].bare.encode_special_tokens
    assert load_to_encode(artifact, plain=True)[1].bare.encode_special_tokens


def test_both_know_the_same_tokens(artifact):
    light, theirs = load_tokenizer(artifact), load_words(artifact.path)
    for name in (
        "special_tokens_map",
        "eos_token",
        "eos_token_id",
        "bos_token_id",
        "vocab_size",
        "chat_template",
    ):
        assert getattr(light, name) == getattr(theirs, name), name
    assert len(light) == len(theirs) and light.get_added_vocab() == theirs.get_added_vocab()


def test_both_render_the_same(artifact):
    light, theirs = load_tokenizer(artifact), load_words(artifact.path)
    for template in [light.chat_template, *map(template_text, NAMES)]:
        if template is None:
            continue
        outcomes = []
        for render in (
            lambda t=template: renderer(light, t, {"strftime_now": "2026-01-31"})(TALK, None),
            lambda t=template: theirs.apply_chat_template(
                TALK, chat_template=t, tokenize=False, strftime_now=date(2026, 1, 31).strftime
            ),
        ):
            try:
                outcomes.append(render())
            except (TemplateError, TypeError, ValueError) as error:
                outcomes.append(f"refused: {error}")
        assert outcomes[0] == outcomes[1]


def test_a_users_own_code_gets_the_tokenizer_of_transformers(artifact):
    assert type(load_tokenizer(artifact).with_transformers()) is type(
        AutoTokenizer.from_pretrained(artifact.path)
    )


def test_a_class_that_makes_something_else_of_the_files_is_asked(tmp_path):
    folder = shutil.copytree(TOKENIZERS / "llama3", tmp_path / "own", ignore=lambda *_: [TOKENIZER_FACTS])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings | {"tokenizer_class": "LlamaTokenizer"})
    )
    write_facts(Tokenizer(folder))
    assert not (folder / TOKENIZER_FACTS).exists()
    loaded, theirs = load_tokenizer(Tokenizer(folder)), AutoTokenizer.from_pretrained(folder)
    assert loaded.given is not None and type(loaded.given).__name__ == "LlamaTokenizer"
    ids = Encoder(Reference(loaded.backend_tokenizer), loaded.eos_token_id).ids_of(FIXED_TEXT)
    assert ids == theirs.encode(FIXED_TEXT, add_special_tokens=False)
    assert loaded.with_transformers() is loaded.given
    # What a user's own code is given still puts BOS before a text.
    loaded, reference = load_to_encode(Tokenizer(folder))
    assert reference.opening and loaded.given.encode("a") == theirs.encode("a")


def test_a_tokenizer_json_that_is_written_in_another_way_is_read_to_be_compared(artifact, tmp_path):
    folder = tmp_path / "own"
    copy_tokenizer(artifact.path, folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))), encoding="utf-8")
    write_facts(Tokenizer(folder))
    assert (folder / TOKENIZER_FACTS).read_bytes() == artifact.facts.read_bytes()


def test_what_is_known_of_a_tokenizer_stays_out_of_models(artifact, tmp_path):
    copy_tokenizer(artifact.path, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert "tokenizer.json" in names and TOKENIZER_FACTS not in names


@pytest.mark.parametrize("golden", GOLDEN)
def test_the_facts_beside_the_golden_tokenizers_are_those_of_now(tmp_path, golden):
    folder = shutil.copytree(TOKENIZERS / golden, tmp_path / "copy", ignore=lambda *_: [TOKENIZER_FACTS])
    write_facts(Tokenizer(folder))
    assert (folder / TOKENIZER_FACTS).read_text() == (TOKENIZERS / golden / TOKENIZER_FACTS).read_text()
