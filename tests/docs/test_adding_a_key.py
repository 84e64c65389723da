"""Follow docs/adding-a-key.md literally, in a copy of the project."""

import json
from pathlib import Path

import pytest
from support.project import make_project

pytestmark = pytest.mark.slow

PAGE = "adding-a-key.md"
SMALL = {"adapter": None, "quantization": None, "max_steps": 1}


def test_the_key_works_and_the_plan_names_it(copy, tmp_path):
    project = make_project(tmp_path / "it", **SMALL, pipeline={"evaluate": ["base"]})
    first, planned, second = (
        document["nodes"]
        for document in copy.tunemill(
            project, "run", "plan --pipeline.wrong_answers=3", "run --pipeline.wrong_answers=3"
        )
    )
    assert {name: node["reasons"] for name, node in planned.items() if node["state"] == "run"} == {
        "evaluation_of_base": ["wrong_answers 20 -> 3"]
    }
    assert [name for name, node in second.items() if node["state"] == "computed"] == ["evaluation_of_base"]
    before, after = first["evaluation_of_base"], second["evaluation_of_base"]
    assert wrong_answers_of(before) == (4, 4) and wrong_answers_of(after) == (4, 3)
    assert before["digest"] == after["digest"]


def test_where_nothing_is_evaluated_the_key_is_noted(copy, tmp_path):
    project = make_project(tmp_path / "it", test_datasets=None, pipeline={"wrong_answers": 3})
    (notes,) = copy.tunemill(project, "check")
    assert {"pipeline.wrong_answers": "idle"}.items() <= {
        note["path"]: note["kind"] for note in notes
    }.items()


def wrong_answers_of(node):
    """How many wrong answers there are, and how many the node's report lists."""
    tables = json.loads((Path(node["path"]).parent / "manifest.json").read_text())["tables"]
    (table,) = (table for table in tables if table["title"].startswith("Wrong answers"))
    return int(table["title"].removeprefix("Wrong answers (").removesuffix(")")), len(table["rows"])
