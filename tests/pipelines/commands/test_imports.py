"""What a command imports, and what not: what nobody needs for it would cost more than the command itself."""

import subprocess
import sys
from ast import literal_eval

import pytest
from support.project import make_project
from test_layout import ROOT

from tunemill.pipelines.cli import COMMANDS, VERBS, make_parser
from tunemill.stages.registry import METHODS

CALL = """
import sys
from tunemill.pipelines.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print(repr((code, sorted(sys.modules))), file=sys.stderr)
"""
# What stages compute with, and what shows their results in a browser.
HEAVY = {
    "accelerate", "aiohttp", "bitsandbytes", "dagster", "datasets", "fsspec", "httpx", "huggingface_hub", "jinja2",
    "matplotlib", "numpy", "pandas", "peft", "pyarrow", "requests", "safetensors", "sqlalchemy", "tokenizers", "torch",
    "torchao", "transformers", "triton", "trl", "shtab",
}  # fmt: skip
NOT_TO_LIST = HEAVY | {"pydantic", "yaml", "importlib.metadata", "rich.console"}
NOT_TO_HELP = NOT_TO_LIST | {"sqlite3", "hashlib", "json", "tunemill.resources.store"}


def imported(arguments, folder):
    done = subprocess.run(
        [sys.executable, "-c", CALL, *arguments], cwd=folder, capture_output=True, text=True, check=True
    )
    code, modules = literal_eval(done.stderr.splitlines()[-1])
    assert code in (0, None), done.stderr
    return set(modules)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("imports") / "project").folder


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_nothing_but_the_command_line(option, folder):
    modules = imported([option], folder)
    assert modules.isdisjoint(NOT_TO_HELP), modules & NOT_TO_HELP
    commands = {name for name in modules if name.startswith("tunemill.pipelines.commands.")}
    assert commands <= {"tunemill.pipelines.commands.arguments"}


@pytest.mark.parametrize(
    "command", [["status"], ["status", "--json"], ["cache", "ls"], ["cache", "verify"], ["cache"]]
)
def test_a_listing_of_the_store_imports_no_configs(command, folder):
    arguments = [*command, "--help"] if command == ["cache"] else command
    modules = imported(arguments, folder)
    assert modules.isdisjoint(NOT_TO_LIST), modules & NOT_TO_LIST
    stages = {name for name in modules if name.startswith("tunemill.stages.")}
    assert stages <= {"tunemill.stages.errors", "tunemill.stages.choices"}


def test_help_on_looking_at_rows_imports_nothing_to_look_with(folder):
    modules = imported(["init", "--help"], folder)
    assert modules.isdisjoint(NOT_TO_LIST), modules & NOT_TO_LIST


def test_looking_at_rows_imports_nothing_to_train_with(folder):
    modules = imported(["init", "data/sums.jsonl", "--output", "new.yml"], folder)
    assert not modules & (HEAVY - {"pyarrow", "numpy", "fsspec"}), modules & HEAVY


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_plan_imports_nothing_to_compute_with(command, folder):
    modules = imported([command, "pipeline.yml"], folder)
    assert modules.isdisjoint(HEAVY), modules & HEAVY
    bodies = [name for name in modules if name.startswith("tunemill.stages") and name.endswith("body")]
    assert "pydantic" in modules and "rich.console" not in modules and not bodies
    assert not modules & {f"tunemill.pipelines.commands.{name}" for name in COMMANDS if name != command}
    # Where the stages of a graph read all that its YAML says, no other method is looked at.
    assert "tunemill.stages.registry" not in modules
    assert {name for name in METHODS if f"tunemill.stages.training.{name}.config" in modules} == {"sft"}


def test_gates_cost_a_plan_nothing_to_compute_with_once_they_were_asked(project):
    compared = {"metric": "eval_loss", "of": "quantized", "max_drop_from": "merged", "margin": 1.0}
    own = {"metric": "exact_match", "of": "quantized", "max": 0.9}
    project.edit(pipeline={"gates": [own]})
    # Its interval is stored beside the metric.
    assert imported(["plan", "pipeline.yml"], project.folder).isdisjoint(HEAVY)
    project.edit(pipeline={"gates": [own, compared]})
    assert "numpy" in imported(["plan", "pipeline.yml"], project.folder)
    assert imported(["plan", "pipeline.yml"], project.folder).isdisjoint(HEAVY)


def test_a_check_of_a_folder_imports_nothing_to_compute_with(folder):
    modules = imported(["check", "."], folder)
    assert modules.isdisjoint(HEAVY), modules & HEAVY


def test_a_run_with_nothing_to_do_imports_nothing_to_compute_with(project):
    for options in (["--json"], []):
        modules = imported(["run", "pipeline.yml", *options], project.folder)
        assert modules.isdisjoint(HEAVY | {"rich.console", "rich.live"}), modules & HEAVY


BUILT = """
import sys
from pathlib import Path
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.registry import STAGES
load_pipeline(Path("pipeline.yml"))
print(*sorted(stage.name for stage in STAGES if stage.config.__pydantic_complete__))
"""


def test_a_check_builds_the_models_of_this_graph_alone(folder):
    done = subprocess.run(
        [sys.executable, "-c", BUILT], cwd=folder, capture_output=True, text=True, check=True
    )
    built = set(done.stdout.split())
    assert built >= {"dataset", "tokenized", "sft", "merged"}
    assert not built & {"orpo", "preferences", "preference_data", "pretraining_data", "synthetic"}


def test_every_command_is_there_and_says_what_it_does(capsys):
    assert {file.stem for file in (ROOT / "pipelines" / "commands").glob("*.py")} >= {
        name.replace("-", "_") for name in COMMANDS if name not in VERBS
    }
    with pytest.raises(SystemExit):
        make_parser([]).parse_args(["--help"])
    brief = capsys.readouterr().out
    with pytest.raises(SystemExit):
        make_parser().parse_args(["--help"])
    assert capsys.readouterr().out == brief
    for command in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            make_parser([command]).parse_args([command, "--help"])
        shown = " ".join(capsys.readouterr().out.split())
        assert ended.value.code == 0 and COMMANDS[command] in shown
