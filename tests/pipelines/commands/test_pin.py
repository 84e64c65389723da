"""`pin` and `unpin`: a node keeps its artifact whatever its YAML asks for, and nothing of it goes without a word."""

import json
import subprocess
import sys

import dagster as dg
import pytest
from support.project import chat_row, make_project, nodes_in_state

from tunemill.pipelines.assets.assets import build_assets
from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.launcher import in_this_process
from tunemill.resources.prune import prune
from tunemill.resources.refs import Ref

DATA = {"dataset_sums", "tokenized_sums", "dataset_echoes", "tokenized_echoes", "training_data", "tokenizer"}
AFTER = {"merged", "quantized"}


@pytest.fixture
def tell(project, capsys):
    """Call a command on the store of the project; what it prints, and on stderr."""

    def call(*arguments, code=0):
        assert main([*map(str, arguments), "--state", str(project.state)]) == code, capsys.readouterr()
        said = capsys.readouterr()
        return (json.loads(said.out) if "--json" in arguments and code == 0 else said.out), said.err

    return call


def planned(tell, project, *arguments):
    return {node["node"]: node for node in tell("plan", project.yaml, "--json", *arguments)[0]["nodes"]}


def test_a_pinned_node_keeps_its_artifact_whatever_changes_upstream(project, tell):
    before = project.plan()["trained"].cached
    said, _ = tell("pin", "pipeline/trained", "--reason", "the one\n that we ship", "--json")
    assert (said["key"], said["digest"]) == (before.key, before.digest)
    assert said["path"] == str(before.data) and said["reason"] == "the one that we ship"
    project.edit(learning_rate=0.5, lora_r=2)
    (project.folder / "data" / "sums.jsonl").unlink()
    nodes = planned(tell, project)
    trained = nodes["trained"]
    assert trained["state"] == "pinned" and trained["pin"]["reason"] == "the one that we ship"
    assert trained["without_pin"]["state"] == "run"
    assert trained["without_pin"]["reasons"] == ["waits on upstream training_data"]
    assert "sums.jsonl" in nodes["dataset_sums"]["without_pin"]["reasons"][0]
    left = {name for name, node in nodes.items() if node["state"] == "left alone"}
    assert left == {*DATA - {"tokenizer"}, "leakage"} and nodes["dataset_sums"]["only_for"] == ["trained"]
    assert {node["state"] for name, node in nodes.items() if name in AFTER} == {"cached"}
    finished = project.run()
    assert finished["trained"].state == "pinned" and finished["trained"].published.key == before.key
    assert nodes_in_state(finished, "computed", "failed") == set()
    # Back to what the YAML asks for.
    tell("unpin", "pipeline/trained")
    assert tell("plan", project.yaml, code=1)[1].count("sums.jsonl")


def test_plan_says_what_is_pinned_since_when_and_what_would_run_without_it(project, tell):
    tell("pin", "pipeline/trained")
    since = project.store.pins.read("pipeline", "trained").since
    out, _ = tell("plan", project.yaml)
    (line,) = [line for line in out.splitlines() if line.startswith("trained ")]
    assert f"since {since}; without the pin: the same artifact" in line and "nothing to run" in out
    project.edit(learning_rate=0.5)
    out, _ = tell("plan", project.yaml)
    (line,) = [line for line in out.splitlines() if line.startswith("trained ")]
    assert "without the pin: would run: learning_rate 0.001 -> 0.5" in line
    (state,) = [node for node in tell("status", "--json")[0]["nodes"] if node["node"] == "trained"]
    assert state["state"] == "pinned" and "learning_rate" in state["why"] and state["pin"]["since"] == since


def test_downstream_is_computed_from_what_is_pinned_and_says_so(project, tell):
    pinned = project.plan()["trained"].cached
    tell("pin", "pipeline/trained", "--reason", "shipped")
    # Its rows had another name when it was trained.
    project.edit(learning_rate=0.5)
    (project.folder / "data" / "sums.jsonl").rename(project.folder / "data" / "others.jsonl")
    datasets = project.config()["datasets"]
    project.edit(datasets=[{**datasets[0], "path": "data/others.jsonl"}, datasets[1]])
    finished = project.run(refresh=["merged"])
    assert finished["merged"].state == "computed" and finished["dataset_others"].state == "left alone"
    (edge,) = finished["merged"].published.manifest["inputs"]["adapter"]
    assert edge["digest"] == pinned.digest and edge["pinned"]["reason"] == "shipped"
    written = json.loads((finished["merged"].published.data / "tunemill_lineage.json").read_text())
    for lineage in (written, tell("lineage", "pipeline/merged", "--json")[0]):
        names = {item["node"] for item in lineage["ancestors"].values()}
        assert "pipeline/dataset_sums" in names and "pipeline/dataset_others" not in names
    out, _ = tell("lineage", "pipeline/merged")
    assert "was pinned" in out and "(shipped)" in out
    assert "pinned to" in tell("lineage", "pipeline/trained")[0].splitlines()[0]


@pytest.mark.parametrize("command", ["run", "preprocess"])
def test_every_run_that_uses_a_pin_says_so(project, tell, command):
    tell("pin", "pipeline/training_data")
    _, err = tell(command, project.yaml)
    assert [line for line in err.splitlines() if "training_data: pinned to" in line]


def test_a_pin_is_neither_refreshed_nor_left_out(project, tell):
    tell("pin", "pipeline/trained")
    for words in (["trained"], ["training"], ["*"]):
        _, err = tell("run", project.yaml, "--refresh", *words, code=1)
        assert "it is pinned to" in err and "tunemill unpin pipeline/trained" in err
    project.edit(learning_rate=0.5)
    out, err = tell("run", project.yaml, "--only", "trained", "--json")
    nodes = {node["node"]: node for node in out["nodes"]}
    assert nodes["trained"]["state"] == "pinned" and "trained: pinned to" in err
    assert nodes["training_data"]["state"] == "left alone"
    # What only it would need is computed where it is asked for by name.
    again = planned(tell, project, "--refresh", "tokenized_sums")
    assert again["tokenized_sums"]["state"] == "run" and again["training_data"]["state"] == "left alone"


def test_the_artifact_of_a_pin_is_not_replaced_by_another_node(project, tell):
    tell("pin", "pipeline/trained")
    other = project.folder / "other.yml"
    other.write_text(project.yaml.read_text() + "\npipeline: {name: other}\n")
    _, err = tell("plan", other, "--refresh", "trained", code=1)
    assert "would be replaced" in err and "pipeline/trained is pinned" in err


def test_what_is_damaged_gone_or_another_one_is_never_served(project, tell):
    tell("pin", "pipeline/trained")
    published = project.plan()["trained"].cached
    weights = published.data / "adapter_model.safetensors"
    before = weights.read_bytes()
    weights.chmod(0o600)
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    for command in ("plan", "run"):
        _, err = tell(command, project.yaml, code=1)
        assert "is damaged: the contents of data/adapter_model.safetensors changed" in err
    assert "damaged" in tell("status", "--json")[0]["problems"]["pipeline"]
    assert "damaged" in tell("pin", "pipeline/trained", code=1)[1]
    out, _ = tell("cache", "verify", code=1)
    assert "runs are refused until: tunemill unpin pipeline/trained" in out
    assert "which is gone from the store" in tell("plan", project.yaml, code=1)[1]
    assert tell("unpin", "pipeline/trained")
    assert project.plan()["trained"].state == "run"


def test_pruning_keeps_what_is_pinned_and_all_that_it_was_made_from(project, tell):
    tell("pin", "pipeline/trained")
    for _, node, _ in project.store.refs.all():
        if node != "evaluation_of_base":
            (project.state / "refs" / "pipeline" / f"{node}.json").unlink()
    out, _ = tell("cache", "prune")
    assert "kept with all that it was made from: pipeline/trained is pinned to" in out
    stages = {folder.parent.name for folder in project.store.artifacts()}
    assert {"sft", "training_data", "dataset", "base_model"} <= stages and "merged" not in stages
    listed = tell("cache", "ls", "--json")[0]["artifacts"]
    assert [item["pinned_by"] for item in listed if item["stage"] == "sft"] == [["pipeline/trained"]]


def test_an_older_artifact_of_the_stage(project, tell):
    old = project.plan()["trained"].cached
    project.edit(learning_rate=0.5)
    project.run(only={"trained"})
    new = project.plan()["trained"].cached
    assert new.digest != old.digest
    for prefix in (old.key[:12], old.digest[:8], old.key):
        assert tell("pin", "pipeline/trained", "--artifact", prefix, "--json")[0]["key"] == old.key
    first = project.store.pins.read("pipeline", "trained")
    tell("pin", "pipeline/trained", "--reason", "why not")
    assert project.store.pins.read("pipeline", "trained").reason == "why not"
    assert project.store.pins.read("pipeline", "trained").since == first.since
    assert planned(tell, project)["trained"]["without_pin"]["state"] == "other"
    data = project.plan()["training_data"].cached or project.store.lookup(
        "training_data", project.store.refs.read("pipeline", "training_data").key
    )
    for given, said in {
        data.key[:12]: "one of the stage training_data",
        "0" * 12: "there is none in",
        "abc": "at least the first 6",
        "../../x": "at least the first 6",
    }.items():
        assert said in tell("pin", "pipeline/trained", "--artifact", given, code=1)[1]


def test_an_artifact_of_another_stage_than_the_yaml_asks_for_is_refused(project, tell):
    tell("pin", "pipeline/trained")
    path = project.state / "pins" / "pipeline" / "trained.json"
    data = project.store.refs.read("pipeline", "training_data")
    path.write_text(json.dumps({**json.loads(path.read_text()), "stage": data.stage, "key": data.key}))
    _, err = tell("plan", project.yaml, code=1)
    assert "the stage training_data has made" in err and "one of the stage sft" in err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("trained", "did you mean pipeline/trained?"),
        ("pipeline/traind", "did you mean pipeline/trained?"),
        ("../etc/passwd", "PIPELINE/NODE"),
        ("pipeline/../x", "PIPELINE/NODE"),
        ("pipeline/\x1b[31m", "PIPELINE/NODE"),
        ("nobody/trained", "tunemill run PIPELINE.YML --only trained"),
        ("adopted/mine", "nothing to pin"),
    ],
)
def test_what_cannot_be_pinned(project, tell, name, said):
    _, err = tell("pin", name, code=1)
    assert said in err and "\x1b" not in err and not (project.state / "pins").exists()


def test_a_node_without_an_artifact_names_the_command_that_makes_one(project, tell):
    (project.state / "refs" / "pipeline" / "merged.json").unlink()
    _, err = tell("pin", "pipeline/merged", code=1)
    assert f"tunemill run {project.yaml} --only merged --state {project.state}" in err


def test_a_pin_whose_node_is_gone_is_told(project, tell):
    tell("pin", "pipeline/quantized")
    project.edit(quantization=None)
    out, _ = tell("plan", project.yaml)
    assert "note: pipeline/quantized is pinned to" in out and "pipeline.yml has no such node" in out
    assert "tunemill unpin pipeline/quantized" in tell("run", project.yaml)[1]
    (node,) = [node for node in tell("status", "--json")[0]["nodes"] if node["node"] == "quantized"]
    assert node["state"] == "not in the YAML" and "unpin pipeline/quantized" in node["why"]
    tell("unpin", "pipeline/quantized")
    assert "quantized" not in tell("plan", project.yaml)[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "sft"}', "link", "folder"])
def test_a_damaged_pin_stops_everything_that_it_might_matter_to(project, tell, text):
    tell("pin", "pipeline/trained")
    path = project.state / "pins" / "pipeline" / "trained.json"
    path.unlink()
    if text == "link":
        path.symlink_to(project.folder / "nowhere")
    elif text == "folder":
        path.mkdir()
    else:
        path.write_text(text)
    for command in (["plan", project.yaml], ["run", project.yaml], ["cache", "prune"], ["status"]):
        _, err = tell(*command, code=1)
        assert "trained.json is damaged" in err and "tunemill unpin pipeline/trained" in err
    assert "pin was damaged" in tell("unpin", "pipeline/trained")[0]
    assert {item.state for item in project.plan().values()} == {"cached"}


def test_a_folder_of_pins_that_leads_nowhere_is_no_empty_one(project, tell):
    (project.state / "pins").symlink_to(project.folder / "nowhere")
    assert "link to nowhere" in tell("plan", project.yaml, code=1)[1]


def test_what_is_not_pinned_is_told(tell):
    assert "what is pinned: nothing" in tell("unpin", "pipeline/trained", code=1)[1]
    tell("pin", "pipeline/trained")
    assert "did you mean pipeline/trained?" in tell("unpin", "pipeline/trainde", code=1)[1]


@pytest.mark.slow
def test_two_at_once_leave_one_whole_pin(project):
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "pin", "pipeline/trained"]
    several = [
        subprocess.Popen([*command, "--state", str(project.state), "--reason", f"{number}" * 200])
        for number in range(4)
    ]
    assert [process.wait() for process in several] == [0] * 4
    pin = project.store.pins.read("pipeline", "trained")
    assert len(pin.reason) == 200 and len(set(pin.reason)) == 1
    assert [path.name for path in (project.state / "pins" / "pipeline").iterdir()] == ["trained.json"]


@pytest.mark.slow
def test_another_pipeline_takes_what_is_pinned_and_says_so(project, tell):
    old = project.plan()["merged"].cached
    tell("pin", "pipeline/merged")
    # As if another process had pointed it elsewhere meanwhile.
    project.store.refs.write("pipeline", "merged", Ref("merged", "0" * 64, "1" * 64))
    after = make_project(project.folder / "after", project.state, base_model="asset://pipeline/merged",
                         reinit_weights=None, pipeline={"name": "after"})  # fmt: skip
    item = planned(tell, after)["base_model"]
    assert item["state"] == "run" and item["pinned_inputs"]["asset://pipeline/merged"]["key"] == old.key
    _, err = tell("run", after.yaml, "--only", "base_model")
    assert "base_model: takes asset://pipeline/merged, which is pinned to" in err
    prune(project.store)
    assert project.plan()["merged"].state == "pinned"


def test_dagster_serves_what_is_pinned_and_leaves_alone_what_only_that_would_need(project, tell):
    before = project.plan()["trained"].cached
    tell("pin", "pipeline/trained", "--reason", "shipped")
    project.edit(learning_rate=0.5)
    with (project.folder / "data" / "sums.jsonl").open("a") as file:
        file.write(chat_row("9 + 9", "18"))

    def materialized(*nodes):
        session = Session(load_pipeline(project.yaml), project.store, in_this_process)
        keys = [dg.AssetKey(["pipeline", node]) for node in nodes]
        with dg.DagsterInstance.ephemeral() as instance:
            outcome = dg.materialize(build_assets(session), instance=instance, selection=keys or None)
        assert outcome.success
        events = [event.step_materialization_data for event in outcome.get_asset_materialization_events()]
        return {event.materialization.asset_key.path[-1]: event.materialization.metadata for event in events}

    made = materialized(*DATA, "trained", "merged")
    assert made["trained"]["state"].value == "pinned" and made["trained"]["digest"].value == before.digest
    assert made["trained"]["pinned"].value["reason"] == "shipped"
    assert made["merged"]["state"].value == "cached"
    assert {made[name]["state"].value for name in DATA - {"tokenizer"}} == {"left alone"}
    # Who materializes it by itself asks for it.
    assert materialized("dataset_sums")["dataset_sums"]["state"].value == "computed"
