"""Held-out rows that only watch training are no part of the model: not in Dagster's graph, not in its lineage."""

import json

import dagster as dg
import pytest
from support.project import chat_row, make_project, nodes_in_state

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.source_versions import PREFIX
from tunemill.resources.launcher import in_this_process

HELD_OUT = {"dataset_held_out", "tokenized_held_out", "evaluation_data"}
MODELS = ("trained", "merged", "quantized")


def definitions_of(project):
    return build_definitions(project.folder, project.state, in_this_process)


def upstream_of(project, node):
    """Every node of the pipeline that Dagster shows before this one, without what lies outside."""
    graph = definitions_of(project).resolve_asset_graph()
    found, pending = set(), [dg.AssetKey(["pipeline", node])]
    while pending:
        parents = graph.get(pending.pop()).parent_keys - found
        found |= parents
        pending += parents
    return {key.path[1] for key in found if not key.path[1].startswith(PREFIX)}


def materialize(project, *nodes):
    """The materialize button over some nodes: which of them ran in which order, and their metadata."""
    keys = [dg.AssetKey(["pipeline", node]) for node in nodes]
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize(
            list(definitions_of(project).assets), instance=instance, selection=keys, raise_on_error=False
        )
    events = outcome.get_asset_materialization_events()
    return outcome, {event.asset_key.path[1]: event.materialization.metadata for event in events}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"dataset_exact_deduplication": True},
        {"test_datasets": None, "val_set_size": 0.2},
        {"test_datasets": None, "val_set_size": 0.2, "dataset_exact_deduplication": True},
        {"adapter": None},
    ],
    ids=["test_datasets", "deduplicated", "val_set_size", "val_set_size, deduplicated", "full"],
)
def test_no_model_is_downstream_of_held_out_rows(tmp_path, settings):
    project = make_project(tmp_path / "project", eval_steps=2, **settings)
    nodes = {node.name for node in load_pipeline(project.yaml).nodes}
    for model in nodes & {*MODELS}:
        before = upstream_of(project, model)
        assert "training_data" in before and not before & HELD_OUT
        assert "evaluation_data" in upstream_of(project, f"evaluation_of_{model}")


@pytest.mark.slow
def test_training_alone_makes_the_rows_that_it_looks_at(fresh_project):
    fresh_project.edit(eval_steps=2)
    needed = upstream_of(fresh_project, "trained")
    outcome, made = materialize(fresh_project, "trained", *needed)
    assert outcome.success and set(made) == {"trained", *needed}
    assert made["trained"]["last_eval_loss"].value > 0
    assert nodes_in_state(fresh_project.plan(), "cached") >= HELD_OUT
    lineage = json.loads((fresh_project.plan()["trained"].cached.data / "tunemill_lineage.json").read_text())
    assert {item["node"].removeprefix("pipeline/") for item in lineage["ancestors"].values()} == needed
    assert set(lineage["inputs"]) == {"base_model", "training_data"}
    assert "held_out" not in made["trained"]["datasets"].value


def test_other_held_out_rows_are_read_anew_and_nothing_upstream_of_the_model_is(project):
    project.edit(eval_steps=2, learning_rate=0.002, dataset_exact_deduplication=True)
    held_out, sums = project.folder / "data" / "held_out.jsonl", project.folder / "data" / "sums.jsonl"
    held_out.write_text(held_out.read_text().splitlines(keepends=True)[0])
    sums.write_text(sums.read_text().splitlines(keepends=True)[0])
    outcome, made = materialize(project, "trained")
    assert outcome.success and set(made) == {"trained"}
    newest = project.store.refs.read("pipeline", "evaluation_data")
    assert project.store.lookup(newest.stage, newest.key).manifest["metrics"]["rows"] == 1
    # By hand, one asset takes what is there of its inputs: that is Dagster's way.
    assert project.plan()["dataset_sums"].state == "run"


@pytest.mark.slow
def test_a_run_makes_them_in_steps_of_their_own_and_once(project):
    """Training could begin at once: its own inputs are all there."""
    with (project.folder / "data" / "held_out.jsonl").open("a") as file:
        file.write(chat_row("8 + 1", "9"))
    started = []

    def observe(node, event):
        if event["type"] == "start":
            started.append(node)

    finished = project.run("eval_steps=2", refresh=["trained", "evaluation_data"], observe=observe)
    assert nodes_in_state(finished, "computed") >= {"trained", *HELD_OUT}
    assert len(started) == len(set(started)) and started.index("evaluation_data") < started.index("trained")


@pytest.mark.parametrize(
    ("settings", "are_asked_for"),
    [
        ({}, False),
        ({"eval_steps": 0.5}, True),
        ({"evals_per_epoch": 2}, True),
        ({"eval_strategy": "epoch"}, True),
        ({"eval_strategy": "steps", "eval_steps": 2}, True),
        ({"eval_strategy": "no"}, False),
        ({"eval_steps": 0, "evals_per_epoch": 0}, False),
    ],
)
def test_they_are_asked_for_where_they_are_scored(fresh_project, settings, are_asked_for):
    fresh_project.edit(**settings)
    inputs = load_pipeline(fresh_project.yaml).node("trained").inputs
    assert inputs.get("evaluation_data") == (("evaluation_data",) if are_asked_for else None)


@pytest.mark.slow
def test_without_monitoring_they_are_not_needed(fresh_project):
    (fresh_project.folder / "data" / "held_out.jsonl").write_text("no json\n")
    outcome, made = materialize(fresh_project, "trained", *upstream_of(fresh_project, "trained"))
    assert outcome.success and "trained" in made
    assert not HELD_OUT & nodes_in_state(fresh_project.plan(), "cached")


@pytest.mark.slow
def test_rows_that_cannot_be_read_are_named_and_nothing_is_trained(fresh_project):
    (fresh_project.folder / "data" / "held_out.jsonl").write_text("no json\n")
    finished = fresh_project.run("eval_steps=2")
    assert finished["dataset_held_out"].state == finished["trained"].state == "failed"
    message = finished["trained"].message
    assert message.startswith("trained looks at dataset_held_out while it runs, which failed: ")
    assert "held_out.jsonl" in message
    assert finished["merged"].state == "skipped" and finished["training_data"].state == "computed"


@pytest.mark.slow
def test_where_they_decide_they_are_an_input_like_any_other(fresh_project):
    """The graph, the lineage and the plan have them, and other rows train again."""
    fresh_project.edit(eval_steps=2, early_stopping_patience=1)
    assert upstream_of(fresh_project, "trained") >= HELD_OUT
    assert fresh_project.run()["trained"].state == "computed"
    assert nodes_in_state(fresh_project.plan(), "run") == set()
    held_out = fresh_project.folder / "data" / "held_out.jsonl"
    held_out.write_text("".join(held_out.read_text().splitlines(keepends=True)[1:]))
    planned = fresh_project.plan()
    assert planned["trained"].state == "run" and planned["base_model"].state == "cached"
    assert any("evaluation_data" in reason for reason in map(str, planned["trained"].reasons))


def test_no_other_setting_lets_held_out_rows_decide(fresh_project):
    """Whoever supports it names the rows in `deciding`."""
    fresh_project.edit(eval_steps=2, eval_strategy="best")
    with pytest.raises(ValueError, match="eval_strategy"):
        load_pipeline(fresh_project.yaml)
