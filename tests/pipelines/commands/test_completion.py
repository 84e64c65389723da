"""`tunemill completion`: what a real bash completes, and that the other shells' scripts hold the same."""

import os
import pty
import select
import shlex
import subprocess
import sys
import time

import pytest

from tunemill.pipelines.cli import COMMANDS, main
from tunemill.pipelines.config.schema import key_tree

# What readline does: words of the command line, of which the last is being written.
COMPLETE = """
source ./script || exit 1
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
[[ $(complete -p tunemill) == *"-F "* ]] || exit 1
function=$(complete -p tunemill) function=${function##*-F } function=${function%% *}
"$function" tunemill "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the script and a few files."""
    folder = tmp_path_factory.mktemp("completion")
    for name in ("first.yml", "second.yaml", "rows.jsonl"):
        (folder / name).touch()
    (folder / "models").mkdir()
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "completion", "bash"]
    (folder / "script").write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return folder


@pytest.fixture(scope="module")
def completed(folder):
    """The words of a command line -> what bash offers for the last one."""

    def complete(*words):
        done = subprocess.run(
            ["bash", "--norc", "-c", COMPLETE, "bash", "tunemill", *words],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done.stdout.split()

    return complete


def test_commands_and_their_actions(completed):
    assert set(completed("")) == set(COMMANDS)
    assert completed("lo") == ["logs"] and completed("comp") == ["completion"]
    assert completed("cache", "p") == ["prune"]
    assert completed("completion", "") == ["bash", "zsh", "fish"]


@pytest.mark.parametrize("command", ["check", "plan", "run", "preprocess", "logs"])
def test_a_pipeline_is_a_yaml_or_a_folder_on_the_way_to_one(completed, command):
    assert sorted(completed(command, "")) == ["first.yml", "models", "second.yaml"]
    assert completed(command, "f") == ["first.yml"]


def test_options_and_what_they_take(completed):
    assert completed("logs", "first.yml", "--f") == ["--follow"]
    assert completed("cache", "prune", "--d") == ["--dry-run", "--days"]
    assert completed("run", "--state", "") == ["models"] == completed("ui", "")
    assert completed("preprocess", "first.yml", "--export", "r") == ["rows.jsonl"]
    assert completed("lineage", "r") == ["rows.jsonl"]


def test_keys_and_their_values(completed):
    assert completed("run", "first.yml", "--learning_r") == ["--learning_rate"]
    assert completed("plan", "first.yml", "--pipeline.n") == ["--pipeline.name"]
    for words in (("--rl", "orp"), ("--rl", "=", "orp"), ("--learning_rate", "=", "1", "--rl", "=", "orp")):
        assert completed("run", "first.yml", *words) == ["orpo"]
    assert "orpo" in completed("run", "first.yml", "--rl", "=") and "dpo" in completed(
        "run", "first.yml", "--rl", ""
    )
    assert set(completed("run", "first.yml", "--sample_packing", "=")) >= {"true", "false"}
    assert completed("status", "--learning_r") == []
    offered = set(completed("check", "first.yml", "--"))
    assert {f"--{key}" for key in key_tree() if key != "pipeline"} <= offered


def test_an_interactive_bash_completes_on_tab(folder):
    terminal, child = pty.openpty()
    environment = {**os.environ, "PS1": "> ", "TERM": "dumb", "INPUTRC": "/dev/null"}
    bash = subprocess.Popen(
        ["bash", "--norc", "-i"], cwd=folder, env=environment, stdin=child, stdout=child, stderr=child,
        start_new_session=True,
    )  # fmt: skip
    os.close(child)
    seen = b""

    def wait_for(text):
        nonlocal seen
        deadline = time.monotonic() + 10
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 1 << 12)

    try:
        wait_for(b"> ")
        os.write(terminal, b"source ./script; echo so''urced\n")
        wait_for(b"sourced\r\n")
        os.write(terminal, b"tunemill ru\tfir\t--rl=orp\t--learning_r\t")
        wait_for(b"tunemill run first.yml --rl=orpo --learning_rate ")
    finally:
        bash.kill()
        bash.wait(10)
        os.close(terminal)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_hold_the_same(shell, capsys):
    """Neither shell is part of every machine: that they parse their script is not tested here."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script.startswith("#compdef tunemill" if shell == "zsh" else "# AUTOMATICALLY GENERATED")
    option = "--{}[" if shell == "zsh" else " -l {} "
    for key in ("learning_rate", "refresh", "rl", "pipeline.name"):
        assert option.format(key) in script
    assert all(command in script for command in COMMANDS) and "*.yml" in script
    if shell == "fish":
        assert all(shlex.split(line) for line in script.splitlines() if line.startswith("complete "))


def test_another_shell_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["completion", "cmd"])
    assert "bash" in capsys.readouterr().err
