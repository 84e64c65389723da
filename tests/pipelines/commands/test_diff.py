"""`tunemill diff`: evaluations by every name, the tests on top, rows that moved, and the page for a browser."""

import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.terminal import run_in_terminal

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.report.comparisons import comparison_lines
from tunemill.pipelines.run.finished import Finished
from tunemill.stages.evaluation.row_ids import row_id

EVIL = "<script>alert('x')</script>\x1b[31m & [bold]"


@pytest.fixture
def diff(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words, code=0, state=None):
        assert main(["diff", *words, "--state", str(state or tmp_path / "state")]) == code
        return capsys.readouterr()

    return call


def write(folder, answers, *, right="5", first=0, ids=True, **more):
    """An evaluation of sums: what a model said to each."""
    folder.mkdir(parents=True)
    rows = [
        {
            "row": place,
            **({"id": row_id(f"2 + {first + place}", right)} if ids else {}),
            "loss": 0.5 + 0.01 * place,
            "prompt": f"2 + {first + place}",
            "reference": right,
            "prediction": answer,
            "exact_match": answer == right,
            **more,
        }
        for place, answer in enumerate(answers)
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metrics.json").write_text(json.dumps({"exact_match": 0.5}))
    sure = {"exact_match": {"values": "exact_match"}, "eval_loss": {"values": "loss"}}
    (folder / "intervals.json").write_text(json.dumps(sure))
    return folder


@pytest.fixture
def sides(tmp_path):
    """Of 40 rows ten got better and one worse; two stand in one alone."""
    before = ["4"] * 12 + ["5"] * 30
    after = ["5"] * 10 + ["4", "4"] + ["7 is five"] + ["5"] * 27
    return str(write(tmp_path / "before", before)), str(write(tmp_path / "after", after))


def test_a_difference_is_said_in_words_and_shown_row_by_row(diff, sides):
    shown = diff(*sides, "--limit", "2").out
    assert (
        "40 rows of both, paired by what they ask" in shown
        and f"2 rows only in {sides[0]}, left out" in shown
    )
    assert "0.925 against 0.7 over 40 rows: better by 0.225 (0.059 to 0.37; p = 0.006)" in shown
    assert "eval_loss    0.695 against 0.695 over 40 rows: the same on every row" in shown
    better, worse = shown.split("1 row worse by exact_match")
    assert "10 rows better by exact_match; the first 2, --limit N shows more" in better
    assert better.count("exact_match wrong -> right") == 2
    assert "row 12: exact_match right -> wrong" in worse and "prompt: 2 + 12\n" in worse
    assert f"prediction of {sides[1]}: 7 is five" in worse
    assert "row" not in diff(*sides, "--limit", "0").out.split("1 row worse by exact_match")[1]


def test_the_same_as_json(diff, sides):
    document = json.loads(diff(*sides, "--json", "--metric", "exact_match").out)
    assert document["one"]["path"] == sides[0] and document["metrics"].keys() == {"exact_match"}
    found = document["metrics"]["exact_match"]
    assert (found["higher"], found["lower"], found["inside_the_noise"]) == (10, 1, False)
    assert (document["rows"], document["only_in_one"], document["only_in_other"]) == (40, 2, 0)
    assert (document["better_rows"], document["worse_rows"]) == (10, 1) == (len(document["better"]), 1)
    assert document["worse"][0]["other"]["prediction"] == "7 is five"


def test_a_difference_inside_the_noise_is_said_to_be_so(diff, tmp_path):
    one, other = (str(write(tmp_path / name, answers)) for name, answers in (("a", "4555"), ("b", "5555")))
    shown = diff(one, other).out
    assert (
        "1 against 0.75 over 4 rows: inside the noise (p = 0.50); too few rows to see any difference" in shown
    )


def test_the_page_needs_no_script_and_escapes_every_text(diff, tmp_path):
    one, other = write(tmp_path / "a", ["4", EVIL]), write(tmp_path / "b", ["5", "5"])
    shown = diff(str(one), str(other), "--html", "page.html").out
    assert "the page: page.html" in shown and "\x1b" not in shown and "<script>" in shown
    text = (tmp_path / "page.html").read_text()
    tags, texts = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, attributes))
    parser.handle_data = texts.append
    parser.feed(text)
    assert "script" not in {tag for tag, _ in tags} and "http" not in text
    assert not [name for _, attributes in tags for name, _ in attributes if name in ("src", "href")]
    assert "".join(texts).count("alert('x')") == 1 and "2 rows better by exact_match" in "".join(texts)
    assert text.count("<del>") == text.count("<ins>") > 0


@pytest.mark.parametrize(
    ("other", "options", "said"),
    [
        ({"first": 100}, [], "share no row: they were evaluated on other rows"),
        ({"ids": False}, [], "have no ids, as in what an older version wrote"),
        ({}, ["--metric", "loss"], "--metric loss: both have a value for each row of exact_match, eval_loss"),
        ({"exact_match": None, "loss": None}, [], "2 rows in common, and no metric of a row"),
    ],
)
def test_where_nothing_is_comparable_the_exit_code_is_2(diff, tmp_path, other, options, said):
    one, two = str(write(tmp_path / "a", "45")), str(write(tmp_path / "b", "55", **other))
    assert said in diff(one, two, *options, code=2).err
    assert said in json.loads(diff(one, two, *options, "--json", code=2).out)["error"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["a"],
            "name two evaluations, such as `tunemill diff quickstart/base quickstart/merged`; here 1 is named",
        ),
        (["a", "a", "a"], "here 3 are named"),
        (["a", "empty"], "empty: it holds no evaluation (metrics.json and predictions.jsonl)"),
        (
            ["a", "nowhere/base"],
            "nowhere/base: there is no such file or folder, and nothing has been computed",
        ),
    ],
)
def test_what_is_no_evaluation_is_refused(diff, tmp_path, words, said):
    write(tmp_path / "a", "45")
    (tmp_path / "empty").mkdir()
    assert said in diff(*words, code=1).err.replace("\n", " ")


def test_bytes_that_are_no_text_are_named(diff, sides):
    with (Path(sides[0]) / "predictions.jsonl").open("ab") as file:
        file.write(b"\xff")
    assert "predictions.jsonl:43: is no JSON" in diff(*sides, code=1).err


def test_nodes_models_older_artifacts_links_and_yamls_name_evaluations(diff, project):
    merged = json.loads(diff("base", "merged", "--json", state=project.state).out)["other"]
    link = project.folder / "outputs" / "evaluation_of_merged"
    names = [
        ["pipeline/evaluation_of_base", "pipeline/evaluation_of_merged"],
        ["pipeline/base", "asset://pipeline/merged"],
        ["base", f"evaluation_of_merged@{merged['digest'][:8]}"],
        # Another evaluation may have the same digest.
        ["base", merged["key"][:10]],
        [str(project.yaml), "base", "merged"],
        ["base", str(link)],
    ]
    for words in names:
        document = json.loads(diff(*words, "--json", state=project.state).out)
        assert (document["one"]["node"], document["other"]["node"]) == (
            "pipeline/evaluation_of_base",
            "pipeline/evaluation_of_merged",
        ), words
        assert document["rows"] == 4 and document["paired_by"] == "id"
    unknown = diff("base", "base@ffffff", state=project.state, code=1).err
    assert (
        "pipeline/evaluation_of_base@ffffff: no artifact of it has such a key or digest; there are" in unknown
    )
    assert "it is no evaluation" in diff("base", "pipeline/training_data", state=project.state, code=1).err


def test_artifacts_of_old_are_paired_by_number_where_the_data_is_the_same(diff, project, tmp_path):
    new = project.folder / "outputs" / "evaluation_of_merged"
    old = tmp_path / "old"
    shutil.copytree(new.resolve(), old)
    (old / "intervals.json").unlink()
    lines = (old / "predictions.jsonl").read_text().splitlines()
    rows = [{name: value for name, value in json.loads(line).items() if name != "id"} for line in lines]
    (old / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = diff(str(old), str(new), state=project.state).out
    assert "4 rows of both, paired by their numbers in the same evaluation data" in shown
    lineage = json.loads((old / "tunemill_lineage.json").read_text())
    (edge,) = lineage["inputs"]["evaluation_data"]
    lineage["ancestors"][edge["key"]]["digest"] = "0" * 64
    (old / "tunemill_lineage.json").write_text(json.dumps(lineage))
    assert (
        "they are not of the same evaluation data"
        in diff(str(old), str(new), state=project.state, code=2).err
    )


def finished(project, state):
    plan = project.plan().values()
    return [Finished(one.node.name, one.node.stage.name, state, (), 0.0, one.cached, one.key) for one in plan]


def test_the_models_of_a_run_are_compared_in_a_line_each(project):
    pipeline = load_pipeline(project.yaml)
    lines = list(comparison_lines(pipeline, finished(project, "computed")))
    same = "exact_match 0 against 0 over 4 rows: the same on every row"
    assert lines == [f"trained against base: {same}"] + [
        f"{model} against trained: {same}" for model in ("merged", "quantized")
    ]
    assert not list(comparison_lines(pipeline, finished(project, "cached"))), (
        "of what is cached it has been said"
    )


@pytest.mark.slow  # 20 s
def test_a_run_says_what_training_and_merging_changed(project, capsys):
    project.edit(eval_batch_size=2)
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0
    assert "trained against base: exact_match 0 against 0 over 4 rows: the same" in capsys.readouterr().out
    assert main(["run", str(project.yaml), "--state", str(project.state)]) == 0
    assert " against " not in capsys.readouterr().out


def test_a_terminal_has_both_sides_beside_each_other(sides, tmp_path):
    command = [sys.executable, "-m", "tunemill.pipelines.cli"]
    words = [*command, "diff", *sides, "--limit", "1", "--state", str(tmp_path / "state")]
    shown = run_in_terminal(words, tmp_path, columns=100)
    assert shown.returncode == 0
    assert any("prediction" in line and "5" in line and "7 is five" in line for line in shown.lines)
