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
        ("pipeline.store: ['file:///a', 'file:///b']", 5, "is of the whole sweep"),
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


RANDOM = (
    "kind: random\ndraws: 40\nlearning_rate: {min: 0.0001, max: 0.01, log: true}\n"
    "lora_r: {min: 2, max: 5}\nwarmup_ratio: {min: 0, max: 0.5}\nlora_dropout: [0.0, 0.1]\n"
    "_: [{micro_batch_size: 1}, {micro_batch_size: 2, gradient_accumulation_steps: 3}]"
)


def test_points_are_drawn_from_ranges_lists_and_sets(tmp_path):
    values = [point.values for point in points(tmp_path, RANDOM)]
    assert len({str(one) for one in values}) == 40
    rates = sorted(one["learning_rate"] for one in values)
    assert rates[0] >= 0.0001 and rates[-1] <= 0.01
    assert 8 <= sum(rate < 0.001 for rate in rates) <= 32, "by orders of size, not nine of ten above 0.001"
    assert {one["lora_r"] for one in values} == {2, 3, 4, 5} and {one["lora_dropout"] for one in values} == {
        0,
        0.1,
    }
    assert {one["micro_batch_size"] for one in values} == {1, 2}
    assert all(("gradient_accumulation_steps" in one) == (one["micro_batch_size"] == 2) for one in values)
    assert all(float(f"{one['warmup_ratio']:.4g}") == one["warmup_ratio"] for one in values)


def test_the_same_seed_draws_the_same_and_more_draws_and_keys_add_to_them(tmp_path):
    first = [point.values for point in points(tmp_path, RANDOM)]
    assert [point.values for point in points(tmp_path, RANDOM)] == first
    fewer = points(tmp_path, RANDOM, "pipeline.sweep.draws=7")
    assert [point.values for point in fewer] == first[:7]
    more = [point.values for point in points(tmp_path, f"{RANDOM}\nseed: [1, 2]")]
    assert [{**one, "seed": 0} for one in more[:5]] == [{**one, "seed": 0} for one in first[:5]]
    other = [point.values for point in points(tmp_path, RANDOM, "pipeline.sweep.draw_seed=1")]
    assert not any(one in first for one in other)
    # What another machine draws too.
    known = points(tmp_path, "kind: random\ndraws: 3\nlearning_rate: {min: 0.0001, max: 0.01, log: true}")
    assert [point.name for point in known] == KNOWN


KNOWN = ["lr_0_006068", "lr_0_0004178", "lr_0_001172"]


@pytest.mark.parametrize(
    ("grid", "line", "words"),
    [
        ("kind: bayes\nlora_r: [4]", 5, "must be grid, every combination, or random"),
        ("draws: 4\nlora_r: [4]", 5, "is of points that are drawn"),
        ("lora_r: {min: 4, max: 8}", 5, "a range has no list of values to try"),
        ("kind: random\nlora_r: [4]", 5, "kind: random takes draws"),
        ("kind: random\ndraws: 0\nlora_r: [4]", 6, "from 1 to 1000"),
        ("kind: random\ndraws: 1\ndraw_seed: x\nlora_r: [4]", 7, "must be a whole number"),
        ("kind: random\ndraws: 3\nlora_r: [4, 8]", 6, "3 points are asked for, and 2 that differ were found"),
        ("kind: random\ndraws: 1\nlora_r: {min: 4, high: 8}", 7, "a range is {min: NUMBER, max: NUMBER}"),
        ("kind: random\ndraws: 1\nlora_r: {min: 8, max: 4}", 7, "max must be above min"),
        ("kind: random\ndraws: 1\nlora_r: {min: 0, max: 4, log: true}", 7, "min must be above 0"),
        ("kind: random\ndraws: 1\nlora_r: {min: 1, max: 4, log: 2}", 7, "log: must be true or false"),
        ("kind: random\ndraws: 1", 4, "names no key to sweep over"),
    ],
)
def test_a_random_sweep_that_is_wrong_is_refused_with_its_line(tmp_path, grid, line, words):
    with pytest.raises(ConfigError, match=words) as refused:
        points(tmp_path, grid)
    assert refused.value.problems[0].line == line
