"""Follow docs/adding-a-stage.md literally, in a copy of the project."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.project import make_project
from support.rows import read_arrow

pytestmark = pytest.mark.slow
PAGE = "adding-a-stage.md"
DATASETS = {"datasets": [{"path": "data/sums.jsonl", "type": "chat_template"}], "test_datasets": None}


def test_its_fingerprint_is_recorded(copy):
    assert "frequencies" in json.loads((copy.root / "stages" / "versions.json").read_text())


def test_the_new_stage_runs_once_and_again_with_other_rows(copy, tmp_path):
    project = make_project(tmp_path / "it", **DATASETS)
    prepared, again, fewer = copy.tunemill(
        project, "preprocess", "preprocess", "preprocess --datasets[0].split=train[:5]"
    )
    new = prepared["nodes"]["frequencies"]
    assert list(prepared["nodes"])[-1] == "frequencies" and new["state"] == "computed"
    text = (Path(new["path"]) / "frequencies.txt").read_text()
    found = [tuple(int(number) for number in line.split()) for line in text.splitlines()]
    rows = read_arrow(Path(prepared["nodes"]["training_data"]["path"]) / "rows.arrow")
    assert found == Counter(token for row in rows for token in row["input_ids"]).most_common(10)
    assert new["tables"]["Frequent tokens"]["rows"] == [list(item) for item in found]
    assert again["nodes"]["frequencies"]["state"] == "cached"
    (reason,) = fewer["nodes"]["frequencies"]["reasons"]
    assert reason.startswith("input training_data (training_data) changed")


def test_a_pipeline_of_preferences_goes_without_it(copy, tmp_path):
    without = {"rl": "dpo", "quantization": None, "sample_packing": None, "eval_max_new_tokens": None}
    project = make_project(tmp_path / "it", **DATASETS, **without)
    (planned,) = copy.tunemill(project, "plan --datasets[0].type=chat_template.default")
    assert "training_data" in planned["nodes"] and "frequencies" not in planned["nodes"]
