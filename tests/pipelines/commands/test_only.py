"""`--only` and `--refresh`: which nodes a command line means, and that the others are left alone."""

import json
import os
import shutil
from argparse import Namespace

import pytest
from support.project import Project

from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.selected import load_selected
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.selection import selection
from tunemill.pipelines.run.estimate import about
from tunemill.resources.launcher import in_this_process
from tunemill.resources.lease import lease

DATA = {
    "tokenizer", "dataset_sums", "tokenized_sums", "dataset_echoes", "tokenized_echoes", "dataset_held_out",
    "tokenized_held_out", "training_data", "evaluation_data", "leakage",
}  # fmt: skip
SUMS = {"tokenizer", "dataset_sums", "tokenized_sums"}


@pytest.fixture
def tunemill(capsys):
    """Call a command on a project; its JSON document with the nodes by name."""

    def call(project, command, *arguments, code=0):
        given = [command, str(project.yaml), *arguments, "--state", str(project.state), "--json"]
        assert main(given) == code
        document = json.loads(capsys.readouterr().out)
        return {node["node"]: node for node in document["nodes"]} if code == 0 else document

    return call


def ran(project, *overrides, only=(), refresh=()):
    """What `tunemill run` does, in this process."""
    options = Namespace(
        pipeline=project.yaml,
        overrides=overrides,
        only=[*only],
        refresh=[*refresh],
        state=str(project.state),
        store=None,
    )
    pipeline, chosen = load_selected(options)
    finished = run_pipeline(
        pipeline, project.store, refresh=chosen.refresh, only=chosen.only, launch=in_this_process
    )
    return {item.node: item.as_json() for item in finished}


def states(nodes):
    found = {}
    for name, node in nodes.items():
        found.setdefault(node["state"], set()).add(name)
    return found


def meant(project, *words):
    return selection(load_pipeline(project.yaml), words, ()).only


@pytest.mark.parametrize(
    ("words", "nodes"),
    [
        (["tokenized_sums"], {"tokenized_sums"}),
        (["tokenized"], {"tokenized_sums", "tokenized_echoes", "tokenized_held_out"}),
        (["sft"], {"trained"}),
        (["training"], {"trained"}),
        (["data"], DATA),
        (["models"], {"base_model", "merged", "quantized"}),
        (["evaluation"], {f"evaluation_of_{model}" for model in ("base", "trained", "merged", "quantized")}),
        (["*_sums"], {"dataset_sums", "tokenized_sums"}),
        (["evaluation_of_[bm]*"], {"evaluation_of_base", "evaluation_of_merged"}),
        (["merged,trained", "quantized, "], {"merged", "trained", "quantized"}),
    ],
)
def test_words_mean_nodes(fresh_project, words, nodes):
    assert meant(fresh_project, *words) == nodes


def test_data_is_what_preprocess_prepares(fresh_project):
    pipeline = load_pipeline(fresh_project.yaml)
    assert {node.name for node in pipeline.data().nodes} == DATA == meant(fresh_project, "data")


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("option", ["--only", "--refresh"])
def test_an_unknown_word_is_an_error_with_what_there_is(tunemill, fresh_project, command, option):
    for word, near in (("evalution", "evaluation"), ("Tokenized-Sums", "tokenized_sums"), ("stf", "sft")):
        (problem,) = tunemill(fresh_project, command, f"{option}=trained,{word}", code=1)["problems"]
        assert f"{option} {word}: there is no such node, stage or group" in problem["message"]
        assert f"did you mean `{near}`?" in problem["message"]
        assert "evaluation_of_merged" in problem["message"] and "groups data, models" in problem["message"]
    for word, said in (("zzz*", "no node has such a name"), (",", "names nothing"), ("", "names nothing")):
        (problem,) = tunemill(fresh_project, command, f"{option}={word}", code=1)["problems"]
        assert said in problem["message"]
    assert not fresh_project.state.exists() or not fresh_project.store.artifacts()


def test_only_what_is_named_and_needed_is_computed(tunemill, fresh_project):
    project = fresh_project
    planned = tunemill(project, "plan", "--only", "tokenized_sums")
    assert states(planned)["run"] == SUMS and len(states(planned)["left alone"]) == 15
    finished = ran(project, only=["tokenized_sums"])
    assert states(finished)["computed"] == SUMS and len(states(finished)["left alone"]) == 15
    assert len(project.store.artifacts()) == 3
    # Again there is nothing to do; and of another node what is there is taken from the store.
    assert states(tunemill(project, "run", "--only", "tokenized_sums"))["cached"] == SUMS
    planned = states(tunemill(project, "plan", "--only=tokenized_echoes"))
    assert planned["run"] == {"dataset_echoes", "tokenized_echoes"} and planned["cached"] == {"tokenizer"}


def test_what_is_left_alone_keeps_what_it_points_to(tunemill, project):
    before = project.plan()
    changes = [f"datasets.{index}.roles_to_train=[user]" for index in range(2)]
    finished = states(ran(project, *changes, only=["tokenized_sums"]))
    assert finished["computed"] == {"tokenized_sums"} and finished["cached"] == {"tokenizer", "dataset_sums"}
    ref = project.store.refs.read("pipeline", "tokenized_echoes")
    assert ref.key == before["tokenized_echoes"].key
    # Back again, all is in the store: the node that is named points there once more, and no other moves.
    assert states(tunemill(project, "run", "--only", "tokenized_sums"))["cached"] >= {"tokenized_sums"}
    assert project.store.refs.read("pipeline", "tokenized_sums").key == before["tokenized_sums"].key
    assert all(item.ref_is_current for item in project.plan().values())


def test_needed_nodes_point_to_what_this_pipeline_asks_for(project):
    """A node that is needed and in the store, but not what its ref names, is read as this YAML has it."""
    before = project.plan()["training_data"]
    ran(project, "sequence_len=100", only=["data"])
    assert not project.plan()["training_data"].ref_is_current
    shutil.rmtree(before.cached.folder)
    finished = ran(project, only=["training_data"])
    assert states(finished)["computed"] == {"training_data"}
    assert finished["training_data"]["digest"] == before.cached.digest


def test_files_of_what_is_left_alone_need_not_be_there(tunemill, fresh_project):
    project = fresh_project
    (project.folder / "data" / "echoes.jsonl").unlink()
    assert states(ran(project, only=["tokenized_sums"]))["computed"] == SUMS
    for command in ("plan", "run"):
        (problem,) = tunemill(project, command, "--only", "training_data", code=1)["problems"]
        assert problem["path"] == "datasets[1].path"


def test_held_out_rows_are_needed_only_by_training_that_runs(tunemill, project):
    arguments = ["--eval_steps=2", "--only", "trained"]
    project.run("eval_steps=2")
    (project.folder / "data" / "held_out.jsonl").write_text(
        (project.folder / "data" / "sums.jsonl").read_text()
    )
    planned = states(tunemill(project, "plan", *arguments))
    assert "trained" in planned["cached"] and "evaluation_data" in planned["left alone"]
    planned = states(tunemill(project, "plan", *arguments, "--learning_rate=0.01"))
    assert planned["run"] == {"dataset_held_out", "tokenized_held_out", "evaluation_data", "trained"}
    assert "merged" in planned["left alone"]


def test_the_command_leaves_alone_and_fails_where_what_is_named_fails(fresh_project, capsys):
    project = fresh_project

    def shown(only, code):
        assert (
            main(["run", str(project.yaml), "--verbose", "--only", only, "--state", str(project.state)])
            == code
        )
        return {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}

    nodes = shown("dataset_echoes", 0)
    assert "computed" in nodes["dataset_echoes"] and "left alone" in nodes["merged"]
    (project.folder / "data" / "sums.jsonl").write_text("no json\n")
    nodes = shown("dataset_sums,dataset_echoes", 1)
    assert "failed" in nodes["dataset_sums"] and "cached" in nodes["dataset_echoes"]
    assert "left alone" in nodes["merged"]


def test_plan_and_run_give_the_same_reasons_for_a_refresh(tunemill, project):
    arguments = ["--refresh", "tokenized", "--refresh", "data*_sums", "--only", "tokenized"]
    planned = tunemill(project, "plan", *arguments)
    refreshed = {"dataset_sums", "tokenized_sums", "tokenized_echoes", "tokenized_held_out"}
    assert states(planned)["run"] == refreshed
    finished = ran(project, only=["tokenized"], refresh=["tokenized", "data*_sums"])
    assert states(finished)["computed"] == refreshed
    assert finished["dataset_sums"]["reasons"] == planned["dataset_sums"]["reasons"]
    assert finished["tokenized_echoes"]["reasons"] == ["asked for with --refresh"]
    assert "dataset_echoes" in states(finished)["cached"]
    # What is refreshed is named as well.
    planned = states(tunemill(project, "plan", "--only", "tokenized_sums", "--refresh", "tokenized_echoes"))
    assert planned["run"] == {"tokenized_echoes"} and "tokenized_sums" in planned["cached"]


def test_an_interrupted_training_goes_on_and_the_plan_says_from_where(tunemill, project, capsys):
    key = project.plan("max_steps=6")["trained"].key
    attempt = project.state / "building" / "sft" / key / "token" / "checkpoints"

    def planned(*arguments):
        return tunemill(project, "plan", "--max_steps=6", *arguments)["trained"]

    assert planned()["resumes_from"] is None
    for step, sealed in ((2, True), (10, True), (12, False)):
        folder = attempt / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "weights").write_text("12")
        if sealed:
            (folder / "complete.json").write_text(json.dumps({"weights": 2}))
    (attempt / "checkpoint-last").mkdir()
    # The one that was being written when it was killed is torn, and is no checkpoint to go on from.
    assert planned()["resumes_from"] == "checkpoint-10" and planned()["reasons"] == ["max_steps 4 -> 6"]
    assert main(["plan", str(project.yaml), "--max_steps=6", "--state", str(project.state)]) == 0
    assert "goes on from an interrupted attempt, at checkpoint-10" in capsys.readouterr().out
    assert tunemill(project, "plan", "--max_steps=7")["trained"]["resumes_from"] is None
    for broken in ("[", "[]", '{"weights": 3}'):
        (attempt / "checkpoint-10" / "complete.json").write_text(broken)
        assert planned()["resumes_from"] == "checkpoint-2"
    assert planned("--only", "data")["resumes_from"] is None
    assert (attempt / "checkpoint-12").is_dir(), "a plan changes nothing"
    lease_file = attempt.parent.parent.with_name(f"{key}.lease")
    with lease(lease_file, print):
        assert planned()["resumes_from"] is None, "it is not interrupted while somebody computes it"
    newer = attempt.parent.with_name("other") / "checkpoints" / "checkpoint-1"
    newer.mkdir(parents=True)
    os.utime(newer.parent, ns=(2**62, 2**62))
    # What the next attempt takes over is the newest folder, whole checkpoints or not.
    assert planned()["resumes_from"] is None


def test_the_estimate_is_of_what_runs_and_has_run_before(project, tmp_path, capsys):
    def shown(of, *arguments):
        given = ["plan", str(of.yaml), *arguments, "--state", str(of.state)]
        assert main([*given, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert main(given) == 0
        return document, capsys.readouterr().out.splitlines()[-1]

    document, line = shown(project)
    assert document["estimated_seconds"] == 0 and line == "nothing to run"
    document, line = shown(project, "--learning_rate=0.5")
    runs = [node for node in document["nodes"] if node["state"] == "run"]
    assert document["estimated_seconds"] == pytest.approx(sum(node["last_seconds"] for node in runs))
    assert 0 < len(runs) < 18 and line.startswith(f"{len(runs)} of 18 nodes to run; about ")
    assert line.endswith(" s, going by the last times")
    document, line = shown(Project(project.folder, tmp_path / "empty"))
    assert document["estimated_seconds"] is None and "none of them has run before" in line
    project.edit(
        datasets=[*project.config()["datasets"], {"path": "data/more.jsonl", "type": "chat_template"}]
    )
    rows = (project.folder / "data" / "sums.jsonl").read_text()
    (project.folder / "data" / "more.jsonl").write_text(rows.replace("+", "plus"))
    document, line = shown(project)
    runs = states({node["node"]: node for node in document["nodes"]})["run"]
    assert line.endswith(f"({len(runs) - 2} of {len(runs)} nodes have run before)")
    document, line = shown(project, "--only", "dataset_more")
    assert document["estimated_seconds"] is None and line.startswith("1 of 20")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.01, "1 s"), (40.4, "40 s"), (59.6, "1 min"), (725, "12 min"), (3599, "1 h"), (11_400, "3 h 10 min"),
        (86_399, "1 d"), (183_600, "2 d 3 h"),
    ],
)  # fmt: skip
def test_times_in_words(seconds, words):
    assert about(seconds) == words
