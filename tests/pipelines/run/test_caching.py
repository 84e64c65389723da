"""Never compute twice, never serve stale data: what runs after which change."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from support.project import Project, chat_row, make_project, nodes_in_state

from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import move

EVALUATIONS = {
    "evaluation_of_base",
    "evaluation_of_trained",
    "evaluation_of_merged",
    "evaluation_of_quantized",
}
FROM_TRAINED = {"trained", "merged", "quantized", *(EVALUATIONS - {"evaluation_of_base"})}


def to_run(project, *overrides):
    return nodes_in_state(project.plan(*overrides), "run")


def test_a_second_run_does_nothing(project):
    """What it costs is in `benchmarks/commands.py`, and what it imports in `test_imports.py`."""
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(project.yaml), "--json"]
    done = subprocess.run(
        [*command, "--state", str(project.state)],
        capture_output=True, text=True, check=True, cwd=project.folder,
    )  # fmt: skip
    nodes = json.loads(done.stdout)["nodes"]
    assert {node["state"] for node in nodes} == {"cached"} and len(nodes) == 18


def test_an_evaluation_key_runs_only_evaluations(project):
    assert to_run(project, "eval_max_new_tokens=5") == EVALUATIONS
    assert to_run(project, "eval_batch_size=3") == EVALUATIONS
    finished = project.run("pipeline.evaluation.max_rows=2")
    assert nodes_in_state(finished, "computed") == EVALUATIONS
    assert nodes_in_state(finished, "cached") == set(finished) - EVALUATIONS


def test_the_learning_rate_runs_training_and_what_follows_and_back_is_free(project):
    changed = project.run("learning_rate=0.002")
    assert nodes_in_state(changed, "computed") == FROM_TRAINED
    assert changed["trained"].reasons == ("learning_rate 0.001 -> 0.002",)
    back = project.run()
    assert nodes_in_state(back, "computed") == set()
    assert to_run(project) == set()


@pytest.mark.parametrize(
    "overrides",
    [
        ["output_dir=elsewhere"],
        ["dataset_prepared_path=elsewhere"],
        ["logging_steps=1"],
        ["save_steps=2"],
        ["dataloader_num_workers=1"],
        ["dataset_num_proc=1"],
        ["eval_steps=2"],
        ["pipeline.name=other"],
    ],
)
def test_what_changes_no_result_runs_nothing(project, overrides):
    assert to_run(project, *overrides) == set()


def test_reformatting_the_yaml_runs_nothing(project):
    config = project.config()
    flow = yaml.safe_dump(dict(reversed(config.items())), default_flow_style=True, sort_keys=False)
    project.yaml.write_text(f"# a comment\n\n{flow}")
    assert to_run(project) == set()


def test_touching_a_dataset_or_moving_the_checkout_runs_nothing(project):
    os.utime(project.folder / "data" / "sums.jsonl")
    assert to_run(project) == set()
    moved = project.folder.rename(project.folder.with_name("moved"))
    assert to_run(Project(moved, moved / ".tunemill")) == set()


def test_one_changed_row_runs_that_dataset_and_what_follows(project):
    time.sleep(0.3)
    assert to_run(project) == set()
    path = project.folder / "data" / "sums.jsonl"
    state = path.stat()
    path.write_text(path.read_text().replace('"2 + 3"', '"3 + 2"', 1))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    plan = project.plan()
    assert plan["dataset_sums"].reasons == (f"path: the contents of {path} changed",)
    assert plan["tokenized_sums"].reasons == ("waits on upstream dataset_sums",)
    finished = project.run()
    (why,) = finished["tokenized_sums"].reasons
    assert why.startswith("input dataset (dataset_sums) changed: ")
    untouched = {
        "tokenizer", "dataset_echoes", "tokenized_echoes", "dataset_held_out", "tokenized_held_out",
        "evaluation_data", "base_model", "evaluation_of_base",
    }  # fmt: skip
    assert nodes_in_state(finished, "cached") == untouched
    assert nodes_in_state(finished, "computed") == set(finished) - untouched


def test_an_upstream_that_gives_the_same_bytes_stops_there(project):
    path = project.folder / "data" / "sums.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row, indent=None, separators=(" , ", " : ")) + "\n" for row in rows))
    finished = project.run()
    assert nodes_in_state(finished, "computed") == {"dataset_sums"}
    assert to_run(project) == set()


@pytest.mark.slow
def test_refreshing_a_repeatable_stage_stops_there(project):
    before = project.plan()["training_data"].cached.digest
    finished = project.run(refresh=["training_data"])
    assert nodes_in_state(finished, "computed") == {"training_data"}
    assert finished["training_data"].published.digest == before


def test_changing_the_held_out_rows_does_not_train_again(project):
    with (project.folder / "data" / "held_out.jsonl").open("a") as file:
        file.write(chat_row("8 + 1", "9"))
    finished = project.run()
    assert nodes_in_state(finished, "computed") == {
        "dataset_held_out", "tokenized_held_out", "evaluation_data", "leakage", *EVALUATIONS
    }  # fmt: skip


def test_a_missing_or_short_file_of_an_artifact_is_noticed_and_computed_again(project):
    rows = project.plan()["tokenized_sums"].cached.data / "rows.arrow"
    rows.chmod(0o644)
    os.truncate(rows, 10)
    plan = project.plan()
    assert nodes_in_state(plan, "run") >= {"tokenized_sums"}
    assert plan["tokenized_sums"].reasons == ("a stored file is missing or cut short: data/rows.arrow",)
    said = []
    finished = project.run(observe=lambda node, event: said.append((node, event.get("message"))))
    assert nodes_in_state(finished, "computed") == {"tokenized_sums"}
    assert any(node == "tokenized_sums" and message and "cache miss" in message for node, message in said)
    assert to_run(project) == set()


def test_a_raised_stage_version_is_the_reason(project):
    found = project.plan()["training_data"].cached
    document = json.loads((found.folder / "key.json").read_text())
    version = document["version"]
    document["version"] -= 1
    (found.folder / "key.json").chmod(0o644)
    (found.folder / "key.json").write_text(json.dumps(document))
    move(found.folder, found.folder.with_name(hash_document(document)))
    ref = project.folder / ".tunemill" / "refs" / "pipeline" / "training_data.json"
    ref.write_text(json.dumps({**json.loads(ref.read_text()), "key": hash_document(document)}))
    assert project.plan()["training_data"].reasons == (
        f"stage training_data has a new version: {version - 1} -> {version}",
    )


def test_an_empty_store_says_never_computed(fresh_project):
    plan = fresh_project.plan()
    assert nodes_in_state(plan, "run") == set(plan)
    assert plan["dataset_sums"].reasons == ("never computed",)
    assert "waits on upstream tokenizer" in plan["tokenized_sums"].reasons
    assert plan["dataset_sums"].key and plan["tokenized_sums"].key is None


def test_a_deleted_artifact_says_it_is_gone(project):
    found = project.plan()["merged"].cached
    shutil.rmtree(found.folder)
    assert project.plan()["merged"].reasons == ("its artifact is gone from the store",)


def test_another_pipeline_shares_what_it_has_in_common(project):
    assert to_run(project, "pipeline.name=other", "lora_r=2") == FROM_TRAINED


def test_links_in_output_dir_lead_to_the_models(project):
    outputs = project.folder / "outputs"
    assert {path.name for path in outputs.iterdir()} == {"merged", "quantized", "trained", *EVALUATIONS}
    for name in ("merged", "quantized", "trained", "evaluation_of_base"):
        assert (outputs / name).is_symlink() and any(Path(outputs / name).iterdir())
    assert (project.folder / "prepared" / "training_data" / "packs.arrow").exists()


def test_another_output_dir_gets_links_though_nothing_runs(project):
    finished = project.run("output_dir=elsewhere")
    assert nodes_in_state(finished, "cached") == set(finished)
    assert (project.folder / "elsewhere" / "merged" / "config.json").exists()


@pytest.mark.slow
def test_a_chain_of_pipelines(project):
    refine = make_project(project.folder / "refine", state=project.state)
    refine.edit(base_model="asset://pipeline/merged", reinit_weights=False, pipeline={"name": "refine"})
    finished = refine.run()
    assert nodes_in_state(finished, "computed") >= {"tokenizer", "base_model", "trained"}
    assert to_run(refine) == set()
    project.run("learning_rate=0.002")
    again = refine.run()
    # The tokenizer comes out the same, so the data is not tokenized again. The base model is what the first
    # pipeline merged and evaluated, so its evaluation is there already.
    assert nodes_in_state(again, "computed") == {"tokenizer", "base_model", *FROM_TRAINED}


@pytest.mark.slow
def test_a_chain_without_its_first_part_says_what_to_run(fresh_project):
    fresh_project.edit(base_model="asset://sft/merged", reinit_weights=False)
    plan = fresh_project.plan()
    assert (
        plan["base_model"]
        .reasons[-1]
        .startswith("asset://sft/merged is not there: run the pipeline 'sft' first")
    )
    finished = fresh_project.run()
    assert finished["tokenizer"].state == "failed"
    assert "run the pipeline 'sft' first" in finished["tokenizer"].message


def test_a_reason_names_the_default_where_a_key_was_unset(project):
    assert project.plan("weight_decay=0.1")["trained"].reasons == ("weight_decay 0.0 -> 0.1",)
    assert to_run(project, "weight_decay=0.0", "num_epochs=1") == set()


def test_a_setting_inside_of_a_setting_is_the_only_reason(project):
    project.edit(pipeline={"evaluation": {"max_rows": 5}})
    assert project.plan()["evaluation_of_trained"].reasons == ("evaluation.max_rows unset -> 5",)
    project.run()
    project.edit(pipeline={"evaluation": {"max_rows": 5, "exact_match": False}})
    assert project.plan()["evaluation_of_trained"].reasons == ("evaluation.exact_match True -> False",)
