"""An engine that turns out wrong while it is used: all is tokenized again by the reference, in every stage."""

import json

import pytest
from support.preference_rows import write_raw
from support.rows import Events, files_of, make_workspace, run_stage, write_lines
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.engines import proof
from tunemill.stages.data.preferences.config import PreferencesConfig
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.data.pretraining_data.config import PretrainingDataConfig
from tunemill.stages.data.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.data.tokenized.body import tokenized
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.errors import RowError
from tunemill.stages.report import Report

# The engines differ about a token that must be a word by itself. Only rows behind these have it within a word.
ALIKE, ROWS = 40, 300
WORD = "<|word|>"


def text(number):
    return f"Row {number}" if number < ALIKE else f"Row{WORD}{number}"


@pytest.fixture
def tokenizer(tmp_path, monkeypatch):
    """A tokenizer that the fast engine is wrong about, and a proof that does not ask for it."""
    folder = make_tokenizer(tmp_path / "base")
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    number = 1 + max(token["id"] for token in described["added_tokens"])
    number = max(number, 1 + max(described["model"]["vocab"].values()))
    flags = {"single_word": True, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    described["added_tokens"].append({"id": number, "content": WORD, **flags})
    (folder / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    monkeypatch.setattr(proof, "battery", lambda _: ["Row 1"])
    monkeypatch.setattr("tunemill.stages.data.engines.own_texts.ROWS_OF_EACH", 0)
    return run_stage(TOKENIZER, TokenizerConfig(base_model=str(folder)), tmp_path / "t", upstream=None)[0]


def test_the_engines_differ_about_it(tokenizer):
    """Or nothing is tested here."""
    loaded = proof.Reference(proof.Tokenizer.from_file(str(tokenizer.path / "tokenizer.json")))
    fast, _ = proof.proven(loaded, [])
    assert fast is not None
    with pytest.raises(proof.DifferentError):
        fast.ids([text(ALIKE)])


def assert_started_again(stage, config, folder, **inputs):
    made, said = run_stage(stage, config, folder / "fast", **inputs)
    slow = config.model_copy(update={"tokenizer_engine": "tokenizers"})
    expected, _ = run_stage(stage, slow, folder / "slow", **inputs)
    assert said.summary["engine"] == "tokenizers" and WORD in said.summary["engine_reason"]
    assert "all rows are tokenized again" in said.logs
    assert files_of(made) == files_of(expected)


def test_tokenized(tokenizer, tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(ROWS)])
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "d")
    config = TokenizedConfig(type="completion")
    assert_started_again(TOKENIZED, config, tmp_path, dataset=dataset, tokenizer=tokenizer)


def test_preferences(tokenizer, tmp_path):
    rows = [{"prompt": text(n), "chosen": f"yes {text(n)}", "rejected": "no"} for n in range(ROWS)]
    raw = write_raw(tmp_path / "raw", rows)
    config = PreferencesConfig(rl="dpo", type="passthrough")
    assert_started_again(PREFERENCES, config, tmp_path, dataset=raw, tokenizer=tokenizer)


def test_pretraining_data(tokenizer, tmp_path):
    source = write_lines(tmp_path / "rows.jsonl", [{"text": text(n)} for n in range(ROWS)])
    config = PretrainingDataConfig(path=str(source), max_steps=20, sequence_len=32)
    assert_started_again(PRETRAINING_DATA, config, tmp_path, tokenizer=tokenizer)


def test_no_tokens_are_made_any_more_once_a_bad_row_stops_the_stage(tokenizer, tmp_path):
    # A batch has 1024 rows: tokens of the second one would show that the engines differ.
    rows = [
        {"text": None},
        *({"text": text(0)} for _ in range(1023)),
        *({"text": text(ALIKE)} for _ in range(200)),
    ]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), tmp_path / "d")
    events = Events()
    workspace = make_workspace(tmp_path / "t2")
    with pytest.raises(RowError, match="1 row of the dataset cannot be used"):
        tokenized(
            TokenizedConfig(type="completion"), dataset, tokenizer, workspace, Report(events.sent.append)
        )
    assert "tokenized again" not in events.logs
