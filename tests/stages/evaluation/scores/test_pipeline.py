"""Another metric generates no token: in a real pipeline, run twice."""

import json
import re

import pytest
from support.project import chat_row, make_project

from tunemill.stages.evaluation.answered import read_answered

MINE = """
def closeness(prediction, reference):
    return -abs(len(prediction) - len(reference))
"""


NODES = [
    "tokenizer", "dataset_own", "tokenized_own", "evaluation_data_own", "base_model", "generations_own_of_base",
    "evaluation_own_of_base",
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = make_project(tmp_path_factory.mktemp("scores") / "project", adapter=None, quantization=None)
    rows = [{**json.loads(chat_row(f"{a} + 9", str(a + 9))), "topic": f"t{a % 2}"} for a in range(5)]
    (made.folder / "data" / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (made.folder / "mine.py").write_text(MINE)
    return made


def run(project, metrics, **keys):
    entry = {"name": "own", "on": ["base"], "data": {"path": "data/own.jsonl", "type": "chat_template"}}
    project.edit(pipeline={"evaluations": [{**entry, "metrics": metrics, **keys}]})
    return project.run(only=NODES)


def state_and_metrics(finished):
    made = finished["evaluation_own_of_base"]
    return finished["generations_own_of_base"].state, made.state, made.published.manifest["metrics"]


@pytest.mark.slow
def test_another_metric_scores_the_answers_that_are_there(project):
    first = run(project, ["exact_match", "mine.py:closeness"])
    made, scored, metrics = state_and_metrics(first)
    assert (made, scored) == ("computed", "computed") and metrics.keys() == {
        "exact_match",
        "closeness",
        "rows",
    }
    answers = list(read_answered(first["generations_own_of_base"].published.data / "generations.jsonl"))
    lengths = [-abs(len(one.prediction) - len(one.reference)) for one in answers]
    assert metrics["closeness"] == pytest.approx(sum(lengths) / 5)

    second = run(project, ["numeric", {"metric": "regex", "pattern": ".", "name": "anything"}])
    made, scored, metrics = state_and_metrics(second)
    assert (made, scored) == ("cached", "computed"), "no token is generated"
    assert metrics["numeric"] == 0 and metrics["anything"] > 0
    folder = second["evaluation_own_of_base"].published.data
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [one.id for one in answers]
    assert {
        "row",
        "prompt",
        "reference",
        "prediction",
        "tokens",
        "finish_reason",
        "numeric",
        "anything",
    } <= lines[0].keys()
    sure = json.loads((folder / "intervals.json").read_text())
    assert sure["anything"]["low"] <= metrics["anything"] <= sure["anything"]["high"]

    # The first ones are still there.
    assert state_and_metrics(run(project, ["exact_match", "mine.py:closeness"]))[:2] == ("cached", "cached")
    # The source of a function counts.
    (project.folder / "mine.py").write_text(MINE.replace("-abs", "abs"))
    made, scored, metrics = state_and_metrics(run(project, ["mine.py:closeness"]))
    assert (made, scored) == ("cached", "computed") and metrics["closeness"] == pytest.approx(
        -sum(lengths) / 5
    )


@pytest.mark.parametrize(
    "body, words",
    [
        ("return 1 / 0", "row 0 raised ZeroDivisionError.*mine.py, line 2"),
        ("return 'x'", "gave 'x' for row 0"),
        ("import numpy; return numpy.zeros(2)", "row 0 raised ValueError: .*size 1"),
    ],
)
def test_a_function_that_fails_is_told_with_its_line(project, body, words):
    (project.folder / "mine.py").write_text(f"def bad(prediction):\n    {body}\n")
    found = run(project, ["mine.bad"])["evaluation_own_of_base"]
    assert found.state == "failed"
    assert re.search(words, found.message or ""), found


def test_rows_of_a_group_are_known_by_it_and_nothing_is_generated_for_that(project):
    found = run(project, ["numeric"], group="topic")
    folder = found["evaluation_own_of_base"].published.data
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [line["group"] for line in lines] == ["t0", "t1", "t0", "t1", "t0"]
    assert found["generations_own_of_base"].state == "cached"
    wrong = run(project, ["numeric"], group="subject")["evaluation_own_of_base"]
    assert "none of 5 rows has a field subject" in (wrong.message or "")
