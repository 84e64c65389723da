"""Dagster's own command line over the same graph gives the same keys and the same artifacts."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from support.project import make_project, nodes_in_state

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.resources.launcher import in_this_process

ROOT = Path(__file__).resolve().parents[3]
DAGSTER = [sys.executable, "-m", "dagster"]


@pytest.mark.slow
def test_materializing_by_dagster_is_a_run(tmp_path, finished_project):
    project = make_project(tmp_path / "project")
    environment = {
        **os.environ,
        "TUNEMILL_PIPELINES": str(project.folder),
        "TUNEMILL_HOME": str(project.state),
        "DAGSTER_HOME": str(tmp_path),
    }
    select = ["-m", "tunemill.pipelines.assets.definitions", "--select", "*pipeline/tokenized_echoes"]
    done = subprocess.run(
        [*DAGSTER, "asset", "materialize", *select],
        env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    plan, expected = project.plan(), finished_project.plan()
    cached = nodes_in_state(plan, "cached")
    assert cached == {"tokenizer", "dataset_echoes", "tokenized_echoes"}
    for name in cached:
        assert (
            plan[name].key == expected[name].key and plan[name].cached.digest == expected[name].cached.digest
        )


def test_the_checkout_itself_is_a_valid_workspace(tmp_path):
    environment = {**os.environ, "DAGSTER_HOME": str(tmp_path), "TUNEMILL_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [*DAGSTER, "definitions", "validate", "-w", "workspace.yaml"],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_asset_by_hand_uses_the_newest_inputs(project):
    definitions = build_definitions(project.folder, project.state, in_this_process)
    assets = list(definitions.assets)
    with dg.DagsterInstance.ephemeral() as instance:
        key = dg.AssetKey(["pipeline", "evaluation_of_merged"])
        outcome = dg.materialize(assets, instance=instance, selection=[key])
        assert outcome.success
        (event,) = outcome.get_asset_materialization_events()
        metadata = event.step_materialization_data.materialization.metadata
        assert metadata["state"].value == "cached" and "sums.jsonl" in metadata["datasets"].value
        assert metadata["exact_match"].value == 0.0
        assert "| exact_match | 0.0 | 0.0 | 0.489" in metadata["How sure the scores are"].value


def test_every_asset_has_a_name_that_stands_alone_and_is_the_nodes(project):
    project.edit(datasets=[*project.config()["datasets"], project.config()["datasets"][0]])
    definitions = build_definitions(project.folder, project.state, in_this_process)
    keys = [key.path[-1] for key in definitions.resolve_all_asset_keys()]
    names = [name for name in keys if not name.startswith("source_of_")]
    assert sorted(names) == sorted([*project.plan(), "summary"]) and len(names) == len(set(names)) == 21
    assert {"tokenized_sums_2", "evaluation_of_merged"} <= set(names)
    outputs = project.folder / "outputs"
    assert {path.name for path in outputs.iterdir()} <= set(names)


def test_a_broken_yaml_shows_its_problems_and_leaves_the_others_alone(project):
    (project.folder / "broken.yml").write_text(project.yaml.read_text() + "learnin_rate: 3\n")
    (project.folder / "notes.yml").write_text("just: notes\n")
    with pytest.warns(UserWarning, match="did you mean `learning_rate`"):
        definitions = build_definitions(project.folder, project.state, in_this_process)
    keys = {key.to_user_string() for key in definitions.resolve_all_asset_keys()}
    assert (
        "broken/config_error" in keys
        and "pipeline/trained" in keys
        and not any("notes" in key for key in keys)
    )


@pytest.mark.slow
def test_datasets_are_called_as_in_the_pipeline_whoever_read_them_first(project):
    shutil.copy(project.folder / "data" / "sums.jsonl", project.folder / "data" / "totals.jsonl")
    entries = [{"path": f"data/{name}.jsonl", "type": "chat_template"} for name in ("totals", "echoes")]
    project.edit(datasets=entries, pipeline={"name": "other"})
    project.run()
    definitions = build_definitions(project.folder, project.state, in_this_process)
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = dg.materialize(
            list(definitions.assets), instance=instance, selection=[dg.AssetKey(["other", "merged"])]
        )
    (event,) = outcome.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    assert metadata["state"].value == "cached"
    assert (
        "other/dataset_totals" in metadata["datasets"].value and "pipeline/" not in metadata["datasets"].value
    )
