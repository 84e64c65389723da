"""Scalars without quotes: YAML 1.2's values, notes where YAML 1.1 differs; and what no key takes for a number."""

import json

import pytest
import yaml
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.scalars import plain
from tunemill.pipelines.graph.load import load_pipeline


@pytest.fixture
def yaml_file(tmp_path):
    return make_project(tmp_path / "project").yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("null", None), ("true", True), ("False", False), ("TRUE", True), ("tRUE", "tRUE"),
        ("0", 0), ("-7", -7), ("+7", 7), ("0x1F", 31), ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("-.5e3", -500.0),
        ("1e-4", 1e-4), ("2E5", 2e5), ("1e+3", 1e3), ("1.5e3", 1500.0), ("abc", "abc"), ("y", "y"), ("n", "n"),
        ("1.2.3", "1.2.3"), ("1-2", "1-2"), ("-", "-"), ("=", "="), ("hf://x", "hf://x"), ("0.0", 0.0), ("00", 0),
    ],
)  # fmt: skip
def test_what_everybody_reads_alike_has_no_note(text, value):
    read = plain(text)
    assert read.value == value and type(read.value) is type(value) and read.note is None


@pytest.mark.parametrize(
    ("text", "value", "note"),
    [
        ("yes", True, "write true"), ("No", False, "write false"), ("on", True, "as in Axolotl"), ("OFF", False, "1.2"),
        ("010", 10, "takes it for 8: write 10 or 8"), ("-010", -10, "takes it for -8"), ("08", 8, "takes it for text"),
        ("1:30", "1:30", "takes it for 90: write 90, or put it in quotes"), ("-1:30", "-1:30", "takes it for -90"),
        ("1:30.5", "1:30.5", "takes it for 90.5"), ("0b101", "0b101", "takes it for 5"), ("0o17", 15, "text: write 15"),
        ("1_000", 1000, "write 1000"), ("1_0.5", 10.5, "write 10.5"), ("0_10", "0_10", "takes it for 8"),
        ("0x_1F", "0x_1F", "takes it for 31"), ("2024-01-31", "2024-01-31", "a date: put it in quotes"),
        ("2024-01-31 10:00:00", "2024-01-31 10:00:00", "a date"),
    ],
)  # fmt: skip
def test_where_others_read_something_else_there_is_a_note(text, value, note):
    read = plain(text)
    assert read.value == value and type(read.value) is type(value)
    assert read.note is not None and note in read.note and f"`{text}`" in read.note


@pytest.mark.parametrize(
    "text", sorted({"yes", "on", "010", "1:30", "0b101", "1_000", "0x_1F", "1_0.5", "0_10"})
)
def test_the_notes_say_what_yaml_1_1_reads(text):
    """PyYAML reads YAML 1.1: what we keep of it has its value, and of the rest the note names that value."""
    old, read = yaml.safe_load(text), plain(text)
    assert read.note is not None
    assert read.value == old or f"takes it for {old}" in read.note


@pytest.mark.parametrize(
    "text", [".nan", ".inf", "-.Inf", "1e999", "1" * 30, "-" + "9" * 20, "0x" + "f" * 17, "1" * 5000]
)
def test_numbers_that_nothing_holds_are_refused(text):
    with pytest.raises(ValueError, match=r"not a finite number|64 bits"):
        plain(text)


def test_a_note_stops_nobody_and_is_in_the_json(yaml_file, capsys):
    yaml_file.write_text(yaml_file.read_text() + "seed: 010\nshuffle_merged_datasets: no\n")
    lines = len(yaml_file.read_text().splitlines())
    assert load_pipeline(yaml_file).node("trained").config.seed == 10
    assert main(["check", str(yaml_file), "--json"]) == 0
    found = [item for item in json.loads(capsys.readouterr().out) if item["kind"] == "ambiguous"]
    assert [(item["path"], item["line"], item["column"]) for item in found] == [
        ("seed", lines - 1, 7),
        ("shuffle_merged_datasets", lines, 26),
    ]


def test_an_override_takes_the_note_away_and_may_have_its_own(yaml_file):
    yaml_file.write_text(yaml_file.read_text() + "seed: 010\n")
    assert load_pipeline(yaml_file, ["seed=3"]).notes == ()
    (note,) = load_pipeline(yaml_file, ["seed=011"]).notes
    assert "`011` is read as 11" in note.message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("micro_batch_size=true", r"number, not true or false \(given: true\)"),
        ("max_grad_norm=true", "number, not true or false"),
        ("learning_rate=no", r"must be above 0 \(given: false\)"),
        ("val_set_size=true", "number, not true or false"),
        ("peft_layers_to_transform=[0, true]", "number, not true or false"),
        ("pipeline.evaluation.max_rows=true", "number, not true or false"),
        ("sequence_len=1000000000000000000000000000000", "sequence_len: .*needs more than 64 bits"),
        ("sequence_len=5_000_000_000", "at most 4294967295"),
        ("sequence_len='5000000000'", "at most 4294967295"),
        ("num_epochs=1e30", "at most 4294967295"),
        ("seed=1:30", "must be a whole number.*'1:30'"),
        ("batch_size=true", "must be a whole number of sequences"),
        ("pipeline=[a]", "pipeline: must be a mapping of keys to values"),
        ("pipeline=[]", "pipeline: must be a mapping of keys to values"),
        ("pipeline=text", "pipeline: must be a mapping of keys to values"),
        ("output_dir=s3://bucket/x", "must be on this machine"),
        ("dataset_prepared_path=gs://bucket/x", "must be on this machine"),
        ("output_dir=~nobody_at_all/x", "no home folder"),
    ],
)
def test_nonsense_is_refused(yaml_file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_pipeline(yaml_file, [override])


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("max_steps=1e3", "max_steps", 1000),
        ("seed=4294967295", "seed", 2**32 - 1),
        ("learning_rate=1e-4", "learning_rate", 1e-4),
        ("micro_batch_size='2'", "micro_batch_size", 2),
        ("bf16=no", "bf16", False),
        ("gradient_checkpointing_kwargs={a: true}", "gradient_checkpointing_kwargs", {"a": True}),
    ],
)
def test_what_makes_sense_is_still_taken(yaml_file, override, field, value):
    assert getattr(load_pipeline(yaml_file, [override]).node("trained").config, field) == value


@pytest.mark.parametrize("command", ["plan", "run", "preprocess", "status", "ui"])
@pytest.mark.parametrize("way", ["--state", "TUNEMILL_HOME"])
def test_a_state_elsewhere_is_refused_and_no_folder_is_made(yaml_file, command, way, monkeypatch, capsys):
    monkeypatch.chdir(yaml_file.parent)
    named = [str(yaml_file.parent if command == "ui" else yaml_file)]
    options = [] if command == "status" else named
    if way == "--state":
        options += ["--state", "s3://bucket/team"]
    else:
        monkeypatch.setenv("TUNEMILL_HOME", "s3://bucket/team")
    before = sorted(yaml_file.parent.rglob("*"))
    assert main([command, *options]) == 1
    assert (
        "the state folder must be on this machine, and s3://bucket/team is a URL" in capsys.readouterr().err
    )
    assert sorted(yaml_file.parent.rglob("*")) == before


def test_an_export_elsewhere_is_refused_before_anything_runs(yaml_file, capsys):
    state = yaml_file.parent / "state"
    options = ["--state", str(state), "--export", "s3://bucket/x.parquet"]
    assert main(["preprocess", str(yaml_file), *options]) == 1
    assert "must be on this machine" in capsys.readouterr().err and not state.exists()
