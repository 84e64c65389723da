"""What the process of a stage of data imports: nothing to train with, which would take seconds before its first row."""

import json
import re
import sys

import pytest
from support.project import make_project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.launcher import in_child

HEAVY = {
    "accelerate",
    "dagster",
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "pandas",
    "peft",
    "torch",
    "transformers",
    "trl",
}
IMPORTED = re.compile(r"^import time: .*\|\s+(\w+)$", re.MULTILINE)
PAIRS = [
    {"messages": [{"role": "user", "content": f"say {word}"}], "chosen": word, "rejected": "no"}
    for word in "abcd"
]
TEXTS = [{"text": f"say {word}"} for word in "abcdefgh"]
PIPELINES = {
    "conversations": {
        "datasets": [
            {"path": "data/sums.jsonl", "type": "chat_template"},
            {"path": "random", "type": "_synthetic", "length": 4},
        ],
    },
    "pairs": {
        "rl": "orpo", "sample_packing": None, "test_datasets": None,
        "datasets": [{"path": "data/pairs.jsonl", "type": "chat_template.default"}],
    },
    "texts": {
        "pretraining_dataset": [{"path": "data/texts.jsonl"}], "datasets": None, "test_datasets": None,
    },
}  # fmt: skip
STAGES = {
    "conversations": {"dataset", "tokenized", "synthetic", "training_data", "evaluation_data", "leakage"},
    "pairs": {"dataset", "preferences", "preference_data"},
    "texts": {"pretraining_data"},
}


@pytest.fixture
def noting_imports(tmp_path, monkeypatch):
    """Every node's process writes what it imports into its log."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -X importtime "$@"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))


@pytest.mark.usefixtures("noting_imports")
@pytest.mark.parametrize(
    "kind", ["texts", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("conversations", "pairs"))]
)
def test_a_node_of_data_imports_nothing_to_train_with(kind, tmp_path):
    project = make_project(tmp_path / "project", **PIPELINES[kind])
    for name, rows in (("pairs", PAIRS), ("texts", TEXTS)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / "data" / f"{name}.jsonl").write_text(text)
    pipeline = load_pipeline(project.yaml).data()
    imported = {}
    for item in run_pipeline(pipeline, project.store, launch=in_child):
        assert item.state == "computed", item.message
        log = item.published.folder / "logs" / "output.log"
        imported[item.stage] = set(IMPORTED.findall(log.read_text()))
    assert imported.keys() == STAGES[kind] | {"tokenizer"}
    # What one stage needs shows that this sees anything at all.
    words = imported.pop("tokenizer")
    assert "transformers" in words and not words & {"torch", "datasets", "pandas"}
    for stage, modules in imported.items():
        assert "tunemill" in modules
        assert not modules & HEAVY, (stage, modules & HEAVY)
