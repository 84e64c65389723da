"""Overrides of keys: in which forms, with which values, and what is said of those that make no sense."""

import re

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main, make_parser
from tunemill.pipelines.commands.arguments import OF_RUN, _chosen, parse
from tunemill.pipelines.graph.load import load_pipeline


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("arguments") / "project")


def config(project, *arguments):
    """The config of the node `trained`, and the pipeline, as `check` sees them."""
    options = parse(make_parser(), ["check", str(project.yaml), *arguments])
    (path,) = options.pipelines
    pipeline = load_pipeline(path, options.overrides)
    return pipeline.node("trained").config, pipeline


@pytest.mark.parametrize(
    "arguments",
    [
        ["learning_rate=3e-5"], ["--learning_rate=3e-5"], ["--learning_rate", "3e-5"], ["--learning-rate", "3e-5"],
        ["--learning-rate=3e-5"], ["learning-rate=3e-5"], ["--json", "learning_rate=3e-5"],
        ["learning_rate=3e-5", "--json"], ["--learning_rate=1", "--learning_rate=3e-5"],
    ],
)  # fmt: skip
def test_every_form_means_the_same(project, arguments):
    assert config(project, *arguments)[0].learning_rate == 3e-5


@pytest.mark.parametrize(
    ("arguments", "key", "value"),
    [
        (["--micro_batch_size=4"], "micro_batch_size", 4),
        (["--bf16", "no"], "bf16", False),
        (["lora_target_modules=[q_proj, v_proj]"], "lora_target_modules", ["q_proj", "v_proj"]),
        (["--seed", "010"], "seed", 10),
        (["--lr_scheduler_kwargs", "{num_cycles: 1e-1}"], "lr_scheduler_kwargs", {"num_cycles": 0.1}),
        (["gradient_checkpointing_kwargs.a=b=c"], "gradient_checkpointing_kwargs", {"a": "b=c"}),
        (["warmup_steps="], "warmup_steps", None),
        (["--warmup_steps", ""], "warmup_steps", None),
    ],
)  # fmt: skip
def test_values_are_yaml(project, arguments, key, value):
    assert getattr(config(project, *arguments)[0], key) == value


@pytest.mark.parametrize("form", ["datasets[1].shards=3", "datasets.1.shards=3", "--datasets.1.shards 3"])
def test_what_lies_in_a_list_is_reached_by_its_number(project, form):
    _, pipeline = config(project, *form.split())
    assert pipeline.node("dataset_echoes").config.shards == 3
    assert pipeline.node("dataset_sums").config.shards is None


def test_overrides_may_stand_before_the_file(project):
    options = parse(make_parser(), ["plan", "seed=7", "--learning-rate", "1", str(project.yaml)])
    assert options.pipeline == project.yaml and [item.parts for item in options.overrides] == [
        ("seed",),
        ("learning_rate",),
    ]


def test_the_options_of_a_command_come_first(project):
    options = parse(
        make_parser(), ["run", str(project.yaml), "--state", "here", "--refresh", "a", "--refresh=b"]
    )
    assert (options.state, options.refresh, options.overrides) == ("here", ["a", "b"], [])


def test_a_file_whose_name_looks_like_an_override_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b.yml").write_text("x: 1\n")
    options = parse(make_parser(), ["plan", "a=b.yml", "c=d"])
    assert str(options.pipeline) == "a=b.yml" and len(options.overrides) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--learning_rate=abc"], "in the override `--learning_rate=abc`: learning_rate: must be a number"),
        (["--learning-rate", "abc"], "in the override `--learning-rate abc`: learning_rate: must be a number"),
        (["learnin_rate=3"], "`learnin_rate=3`: learnin_rate: unknown key; did you mean `learning_rate`?"),
        (["--jsn=3"], "did you mean `--json`?"),
        (["jsn=3"], "in the override `jsn=3`: jsn: unknown key; take it out"),
        (["datasets[7].path=x"], "datasets has 2 items"),
        (["datasets.x=1"], "datasets is a list, whose items are chosen by number"),
        (["seed[0]=1"], "is no list"),
        (["--.=1"], "is no key"),
        (["tokens=[a"], "in the override `tokens=[a`: tokens: not valid YAML"),
        (["seed=.nan"], "in the override `seed=.nan`: seed: .nan is not a finite number"),
        (["datasets=[{path: a.jsonl, typ: alpaca}]"], "datasets[0].typ: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_blamed_on_the_override(project, capsys, arguments, said):
    assert main(["check", str(project.yaml), *arguments]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert any(said in line for line in lines), lines
    assert not any(line.startswith(f"{project.yaml}:1:1") for line in lines)
    assert re.fullmatch(r" *\^~*", lines[2]) and lines[1] in (" ".join(arguments), arguments[0])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "FILE", "--refresh", "trained"], "--refresh is an option of `tunemill run`"),
        (["evaluate", "FILE", "--only=trained"], "--only is an option of `tunemill run`"),
        (["check", "FILE", "--jsn"], "unrecognized arguments: --jsn; did you mean --json?"),
        (["check", "FILE", "--sample_packing"], "--sample_packing has no value: write --sample_packing=VALUE"),
        (["check", "--sample_packing", "FILE"], "--sample_packing has no value before the file"),
        (["check", "FILE", "--learning-rate"], "--learning-rate has no value"),
        (["check", "FILE", "--learnin-rate"], "did you mean --learning_rate?"),
        (["plan", "FILE", "other"], "unrecognized arguments: other"),
        (["check"], "PIPELINE.YML"),
        (["check", "FILE", ""], "a name is empty"),
        (["plan", "FILE", "--state"], "--state: expected one argument"),
        (["chek", "FILE"], "there is no command 'chek'; did you mean check?"),
        (["status", "--jsn"], "unrecognized arguments: --jsn; did you mean --json?"),
        (["status", "--learning_rate=3"], "unrecognized arguments: --learning_rate=3"),
    ],
)  # fmt: skip
def test_what_is_no_override_is_wrong_usage(project, capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        main([str(project.yaml) if item == "FILE" else item for item in arguments])
    assert caught.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "plan", "run", "preprocess"])
def test_the_help_of_each_command_shows_overrides(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--learning_rate 1e-4 or learning_rate=1e-4" in said and "datasets.0.path=rows.jsonl" in said


@pytest.mark.parametrize("command", ["plan", "run", "preprocess"])
def test_every_command_takes_them(project, command, capsys):
    assert main([command, str(project.yaml), "--state", str(project.state), "--seed", "x"]) == 1
    assert "in the override `--seed x`: seed: must be a whole number" in capsys.readouterr().err


def test_options_of_run_are_some():
    parser = _chosen(make_parser(["run"]), "run")
    assert set(OF_RUN) <= set(parser._option_string_actions)
