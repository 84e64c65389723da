"""One tokenizer, and a short way from rows to tokens."""

import pytest
from support.rows import run_stage, write_lines
from support.tiny_tokenizer import make_tokenizer

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.tokenized.config import TokenizedConfig
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.config import TokenizerConfig
from tunemill.stages.data.tokenizer.stage import TOKENIZER


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, base):
    config = TokenizerConfig(base_model=str(base))
    return run_stage(TOKENIZER, config, tmp_path_factory.mktemp("tokenizer"), upstream=None)[0]


@pytest.fixture
def tokenize(tmp_path, tokenizer):
    """rows, settings -> (the tokenized dataset, what was said)."""
    calls = 0

    def run(rows, given=tokenizer, **settings):
        nonlocal calls
        calls += 1
        folder = tmp_path / str(calls)
        folder.mkdir()
        source = write_lines(folder / "rows.jsonl", rows)
        dataset, _ = run_stage(DATASET, DatasetConfig(path=str(source)), folder / "dataset")
        settings = {"type": "chat_template", "path": str(source), **settings}
        config = TokenizedConfig(**settings)
        return run_stage(TOKENIZED, config, folder / "tokenized", dataset=dataset, tokenizer=given)

    return run
