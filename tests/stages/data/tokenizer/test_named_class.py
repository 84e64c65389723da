"""Where the class that a tokenizer's files name is taken as it is, `AutoTokenizer` takes the same; torch stays out."""

import json
import shutil
import subprocess
import sys

import pytest
from support.formats import TOKENIZERS
from support.rows import run_stage
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.data.tokenizer import body
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.named_class_body import (
    GENERIC,
    TYPES_OF_CLASS,
    TYPES_OF_GENERIC,
    load_named,
)
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.models.words_body import load_words

NAMED = [
    *((name, kind) for name in sorted(GENERIC) for kind in (None, *sorted(TYPES_OF_GENERIC))),
    *((name, kind) for name, kinds in TYPES_OF_CLASS.items() for kind in (None, *sorted(kinds))),
    *((f"{name}Fast", min(kinds)) for name, kinds in TYPES_OF_CLASS.items()),
]


def write(folder, name, kind=None, **settings):
    make_tokenizer(folder)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_class": name, **settings}))
    if kind is not None:
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


@pytest.mark.parametrize(("name", "kind"), NAMED)
def test_auto_tokenizer_takes_the_same_class(tmp_path, name, kind):
    folder = write(tmp_path / "model", name, kind)
    ours = load_named(folder, None if kind is None else folder)
    theirs = load_words(folder, config=body.config_of(folder))
    assert type(ours) is type(theirs)
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    assert ours.special_tokens_map == theirs.special_tokens_map


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("Qwen2Tokenizer", "llama", {}),
        ("PreTrainedTokenizerFast", "qwen2", {}),
        ("PreTrainedTokenizerFast", "nobody_knows", {}),
        ("PreTrainedTokenizerFast", "llama", {"auto_map": {"AutoTokenizer": ["own.Own", None]}}),
        ("BertTokenizer", None, {}),
        (None, "llama", {}),
    ],
)
def test_nothing_is_said_of_what_is_not_known(tmp_path, name, kind, settings):
    folder = write(tmp_path / "model", name, kind, **settings)
    assert load_named(folder, folder) is None


def test_nothing_is_said_of_a_config_that_cannot_be_read(tmp_path):
    folder = write(tmp_path / "model", "PreTrainedTokenizerFast", "llama")
    (folder / "config.json").write_text("{")
    assert load_named(folder, folder) is None
    shutil.rmtree(folder)
    folder = write(tmp_path / "model", "PreTrainedTokenizerFast", "llama")
    (folder / "tokenizer_config.json").write_text("[]")
    assert load_named(folder, folder) is None


@pytest.mark.parametrize("words", sorted(path.name for path in TOKENIZERS.iterdir()))
def test_what_is_written_is_the_same(tmp_path, words):
    written = []
    # Beside the second one AutoTokenizer is asked, and takes the same class.
    for kind in ("llama", "stablelm"):
        folder = shutil.copytree(TOKENIZERS / words, tmp_path / kind / "model")
        (folder / "config.json").write_text(json.dumps({"model_type": kind}))
        assert (load_named(folder, folder) is None) == (kind == "stablelm")
        config = TokenizerConfig(
            base_model=str(folder),
            special_tokens={"pad_token": "<pad>"},
            tokens=["<tool>"],
            chat_template="chatml",
        )
        made, _ = run_stage(TOKENIZER, config, tmp_path / kind / "out", upstream=None)
        written.append({path.name: path.read_bytes() for path in made.path.iterdir()})
    assert written[0] == written[1] and len(written[0]) >= 4


def test_torch_stays_out(tmp_path):
    folder = write(tmp_path / "model", "PreTrainedTokenizerFast", "llama")
    code = (
        "import sys; from pathlib import Path; from tunemill.stages.data.tokenizer.body import load_tokenizer;"
        f"load_tokenizer(Path({str(folder)!r}), Path({str(folder)!r}), None); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_config_of_the_model_counts_before_that_of_the_tokenizers_folder(tmp_path):
    words = write(tmp_path / "words", "PreTrainedTokenizerFast", "llama")
    model = write(tmp_path / "model", "PreTrainedTokenizerFast", "qwen2")
    assert load_named(words, model) is None and load_named(words, words) is not None
    (model / "config.json").unlink()
    assert load_named(words, model) is not None
    (words / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    assert load_named(words, model) is None
