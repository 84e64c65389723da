"""A YAML with a sweep as its pipelines: what is refused, what is shared, what is said of points that are the same."""

import re

import pytest
from support.project import make_project

from tunemill.pipelines.assets.folder import load_folder
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.check_files import check_files
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.sweep import fingerprint, load_named, load_sweep
from tunemill.pipelines.graph.sweep_plan import plan_sweep, shared_nodes
from tunemill.pipelines.graph.sweep_settings import judging, rung_overrides

EIGHT = [0.001 * (number + 1) for number in range(8)]


def sweep_project(folder, sweep, settings=None, **keys):
    block = {"sweep": sweep} | ({} if settings is None else {"sweep_settings": settings})
    keys = {"quantization": None, "pipeline": block, **keys}
    return make_project(folder / "project", **keys)


def problems_of(project, *overrides):
    with pytest.raises(ConfigError) as refused:
        load_sweep(project.yaml, overrides)
    return refused.value.problems


def line_of(project, text):
    return next(
        number for number, line in enumerate(project.yaml.read_text().splitlines(), 1) if text in line
    )


def test_eight_learning_rates_share_all_but_what_is_trained(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": EIGHT})
    sweep = load_sweep(project.yaml)
    points = plan_sweep(sweep, project.store)
    nodes = shared_nodes(points)
    own = {one.item.node.name for one in nodes if len(one.points) == 1}
    assert own == {"trained", "merged", "evaluation_of_trained", "evaluation_of_merged"}
    assert len(nodes) == 12 + 8 * len(own) and sum(len(point.plan) for point in points) == 8 * 16
    assert {len(one.points) for one in nodes} == {1, 8}


def test_a_point_is_the_pipeline_that_its_settings_make(tmp_path):
    file = "data/echoes.jsonl"
    project = sweep_project(
        tmp_path, {"learning_rate": [0.5, 0.25], "datasets[0].path": [file, "data/sums.jsonl"]}
    )
    point = load_pipeline(project.yaml, ["pipeline.point=lr_0.25_datasets[0].path_data/echoes.jsonl"])
    assert point.node("trained").config.learning_rate == 0.25
    assert point.output_dir == project.folder / "outputs" / point.point.name
    first, second = project.config()["datasets"]
    project.edit(learning_rate=0.25, datasets=[{**first, "path": file}, second], pipeline=None)
    assert fingerprint(load_pipeline(project.yaml)) == fingerprint(point)


def test_nothing_takes_a_sweep_for_one_pipeline(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": [0.5, 0.25]})
    with pytest.raises(ConfigError, match=r"a sweep of 2 points.*--point NAME means one: lr_0_5, lr_0_25"):
        load_pipeline(project.yaml)
    with pytest.raises(ConfigError, match=r"no such point.*did you mean `lr_0_25`"):
        load_pipeline(project.yaml, ["pipeline.point=lr_0_26"])
    project.edit(pipeline={"point": "lr_0_5"})
    with pytest.raises(ConfigError, match="there is no sweep here"):
        load_pipeline(project.yaml)


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("lerning_rate", [1, 2], "unknown key"),
        ("rl_beta", [1, 2], "this pipeline trains sft. Take it out"),
        (
            "gpu_memory_limit",
            [1, 2],
            "one device trains.*make the same model again and again; take it out",
        ),
        ("lora_r", ["many", 4], "lora_r.*point lora_r_many"),
    ],
)
def test_a_swept_key_that_is_wrong_or_that_nobody_reads_is_refused_at_its_line(tmp_path, key, values, words):
    project = sweep_project(tmp_path, {key: values})
    (found, *_) = problems_of(project)
    wanted = line_of(project, key) if "many" not in values else line_of(project, "many")
    shown = found.line_in(project.yaml)
    assert found.line in (wanted, wanted + 1) and not found.is_note, shown
    assert re.search(words, shown), shown


def test_a_swept_key_that_asks_for_nothing_in_every_point_is_refused(tmp_path):
    project = sweep_project(tmp_path, {"hub_strategy": ["end", "every_save"]})
    (found,) = [problem for problem in problems_of(project) if not problem.is_note]
    assert found.line in (line_of(project, "hub_strategy"), line_of(project, "hub_strategy") + 1)
    assert "the same model again and again" in found.message


def test_points_with_the_same_results_are_said_to_have_them(tmp_path):
    project = sweep_project(tmp_path, {"logging_steps": [1, 2]})
    (note,) = load_sweep(project.yaml).notes
    assert "the point logging_steps_2 has the results of logging_steps_1" in note.message
    assert note.line == line_of(project, "sweep:")


def test_the_first_points_of_the_grid_are_run_where_their_number_is_limited(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": EIGHT}, {"max_runs": 3})
    points = plan_sweep(load_sweep(project.yaml), project.store)
    assert [point.left_out for point in points] == [None] * 3 + ["max_runs: 3"] * 5
    assert len(shared_nodes(points)) == 12 + 3 * 4


def test_who_judges_must_be_there(tmp_path):
    grid = {"learning_rate": [1, 2]}
    project = sweep_project(tmp_path, grid, {"metric": "exact_mach"})
    (found,) = problems_of(project)
    assert found.suggestion == "exact_match" and found.line == line_of(project, "exact_mach")
    project.edit(pipeline={"sweep": grid, "sweep_settings": {"of": "quantized"}})
    assert "there is no node evaluation_of_quantized" in problems_of(project)[0].message
    project.edit(pipeline={"sweep": grid, "sweep_settings": {"of": "trained"}})
    sweep = load_sweep(project.yaml)
    assert judging(sweep.pipelines[0], sweep.settings).name == "evaluation_of_trained"


@pytest.mark.parametrize(
    ("settings", "keys", "words"),
    [
        ({"rungs": [4]}, {}, "the training has 4 steps"),
        ({"rungs": [3, 2]}, {}, "must be a later step"),
        ({"keep": 0.5}, {}, "there is none"),
        ({"rungs": [2]}, {"test_datasets": None}, "there are none"),
        ({"rungs": [2]}, {"eval_steps": 3}, "leads to no step"),
        ({"rungs": [2]}, {"saves_per_epoch": 2}, "must say when, not saves_per_epoch"),
    ],
)
def test_rungs_that_cannot_be_met_are_refused(tmp_path, settings, keys, words):
    project = sweep_project(tmp_path, {"learning_rate": [1, 2]}, settings, **keys)
    assert words in " ".join(problem.message for problem in problems_of(project))


def test_stopping_at_rungs_changes_no_key(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": [1, 2]}, {"rungs": [2]})
    plain = load_sweep(project.yaml)
    rungs = rung_overrides(plain.settings, plain.document)
    assert [one.text for one in rungs] == ["save_steps=2", "eval_steps=2"]
    halved = load_sweep(project.yaml, rungs)
    assert [*map(fingerprint, plain.pipelines)] == [*map(fingerprint, halved.pipelines)]
    assert halved.pipelines[0].node("trained").config.save_steps == 2


def test_check_and_dagster_see_the_points(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": [0.5, 0.25]})
    (project.folder / "other.yml").write_text(
        project.yaml.read_text()
        .replace("pipeline:\n", "pipeline:\n  name: pipeline_lr_0_5\n")
        .split("  sweep:")[0]
    )
    pipelines, broken = load_folder(project.folder)
    assert [*broken] == [project.folder / "pipeline.yml@lr_0_5"]
    assert {pipeline.name for pipeline in pipelines.values()} == {"pipeline_lr_0_5", "pipeline_lr_0_25"}
    checked = check_files([project.folder])
    assert [item.file.name for item in checked if item.is_wrong] == ["pipeline.yml"]


def test_a_point_is_found_by_the_name_of_its_pipeline(tmp_path):
    project = sweep_project(tmp_path, {"learning_rate": [0.5, 0.25]})
    assert load_named(project.yaml, "pipeline_lr_0_25").point.name == "lr_0_25"
    grid = project.folder / "grid.yml"
    grid.write_text("lora_r: [2, 3]\n")
    assert load_named(project.yaml, "pipeline_lora_r_3", str(grid)).node("trained").config.lora_r == 3
