"""The points of a sweep: how many, what they are called, and what is refused with its line."""

import re

import pytest

from tunemill.pipelines.config.document import read_document
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.sweep_points import chosen_point, points_of


def points(tmp_path, sweep, *overrides):
    """The points of a YAML with this text below `pipeline.sweep`."""
    file = tmp_path / "x.yml"
    lines = "".join(f"    {line}\n" for line in sweep.splitlines())
    file.write_text(f"base_model: model\noutput_dir: out\npipeline:\n  sweep:\n{lines}")
    return points_of(read_document(file, overrides), "x")


def test_a_grid_is_every_combination_and_paired_sets_vary_together(tmp_path):
    grid = "learning_rate: [0.001, 1e-4]\n_: [{lora_r: 4, lora_alpha: 8}, {lora_r: 8, lora_alpha: 16}]"
    found = points(tmp_path, grid)
    assert [point.name for point in found] == [
        "lr_0_001_lora_r_4_lora_alpha_8",
        "lr_0_001_lora_r_8_lora_alpha_16",
        "lr_0_0001_lora_r_4_lora_alpha_8",
        "lr_0_0001_lora_r_8_lora_alpha_16",
    ]
    assert found[1].values == {"learning_rate": 0.001, "lora_r": 8, "lora_alpha": 16}
    assert found[1].pipeline == "x_lr_0_001_lora_r_8_lora_alpha_16"


def test_a_point_is_found_by_its_values_as_they_are_written(tmp_path):
    found = points(tmp_path, "learning_rate: [0.001, 0.01]")
    assert chosen_point(found, "lr_0.001") is found[0]
    assert chosen_point(found, "x_lr_0_01") is found[1]
    assert chosen_point(found, "lr_1") is None


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ("lora_target_modules: [[q_proj], [q_proj, v_proj]]", ["q_proj", "q_proj_v_proj"]),
        ("sample_packing: [true, false]", ["sample_packing_true", "sample_packing_false"]),
        ("adapter: [lora, null]", ["adapter_lora", "adapter_null"]),
        ("trl.beta: [-1, 1]", ["trl_beta_minus_1", "trl_beta_1"]),
        ("datasets[0].path: [a.jsonl, b.jsonl]", ["datasets_0__path_a_jsonl", "datasets_0__path_b_jsonl"]),
    ],
)
def test_names_are_plain_and_readable(tmp_path, grid, names):
    found = [point.name.removeprefix("lora_target_modules_") for point in points(tmp_path, grid)]
    assert found == names and all(re.fullmatch(r"\w{1,100}", name) for name in found)


def test_names_that_would_be_the_same_stay_apart(tmp_path):
    names = [point.name for point in points(tmp_path, "base_model: [a/b, a-b]")]
    assert len(set(names)) == 2 and all(name.startswith("base_model_a_b_") for name in names)
    again = [point.name for point in points(tmp_path, "base_model: [a-b, a/b]")]
    assert again == names[::-1]


def test_each_point_has_a_folder_of_links_of_its_own(tmp_path):
    found = points(tmp_path, "learning_rate: [0.001, 0.01]")
    folders = [one.value_text for point in found for one in point.overrides if one.parts == ("output_dir",)]
    assert folders == ['"out/lr_0_001"', '"out/lr_0_01"']


@pytest.mark.parametrize(
    ("grid", "line", "words"),
    [
        ("learning_rate: [0.001, 1e-3]", 5, "makes a point that is there already"),
        ("learning_rate: 0.001", 5, "must be a list of values"),
        ("learning_rate: []", 5, "must be a list of values"),
        ("lora_r: [4]\n_: [lora_r]", 6, "must be a mapping"),
        ("lora_r: [4]\n_: [{lora_r: 8}]", 6, "is set by lora_r of the same sweep too"),
        ("trl: [{beta: 1}]\ntrl.beta: [1]", 6, "is set by trl of the same sweep too"),
        ("pipeline.name: [a, b]", 5, "is of the whole sweep"),
        ("lora_r: [1]\n'[0]': [1]", 6, "is of the whole sweep|is no key"),
        (f"lora_r: {[*range(40)]}\nlora_alpha: {[*range(40)]}", 4, "makes 1600 points"),
    ],
)
def test_a_grid_that_is_wrong_is_refused_with_its_line(tmp_path, grid, line, words):
    with pytest.raises(ConfigError, match=words) as refused:
        points(tmp_path, grid)
    assert refused.value.problems[0].line == line


def test_a_swept_key_cannot_be_overridden_and_the_grid_can(tmp_path):
    with pytest.raises(ConfigError, match="the sweep sets learning_rate"):
        points(tmp_path, "learning_rate: [0.001, 0.01]", "learning_rate=1")
    found = points(tmp_path, "learning_rate: [0.001, 0.01]", "pipeline.sweep.learning_rate=[5]")
    assert [point.values for point in found] == [{"learning_rate": 5}]


def test_a_sweep_may_stand_in_a_file_of_its_own(tmp_path):
    (tmp_path / "grid.yml").write_text("learning_rate: [0.1, 0.2]\n")
    file = tmp_path / "x.yml"
    file.write_text("base_model: model\npipeline: {sweep: grid.yml}\n")
    found = points_of(read_document(file), "x")
    assert [point.name for point in found] == ["lr_0_1", "lr_0_2"] and found[0].grid is None
    named = points_of(read_document(file, [f"pipeline.sweep={tmp_path / 'grid.yml'}"]), "x")
    assert named[0].grid == tmp_path / "grid.yml"
    (tmp_path / "grid.yml").write_text("\nlearning_rate: 5\n")
    with pytest.raises(ConfigError, match=r"grid.yml:2:16: learning_rate: must be a list"):
        points_of(read_document(file), "x")
    file.write_text("base_model: model\npipeline: {sweep: none.yml}\n")
    with pytest.raises(ConfigError, match="there is no such file"):
        points_of(read_document(file), "x")
