"""What goes wrong for people: one clear error, a non-zero exit, nothing half-published."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.project import Project, chat_row

CLI = [sys.executable, "-m", "tunemill.pipelines.cli"]


def run(project: Project, *arguments: str, command: str = "run"):
    return subprocess.run(
        [*CLI, command, str(project.yaml), "--state", str(project.state), *arguments],
        capture_output=True,
        text=True,
    )


def artifacts_of(project: Project, stage: str):
    return sorted((project.state / "artifacts" / stage).glob("*"))


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (chat_row("1 + 1", "2") + "{not json\n" + chat_row("2 + 2", "4"), ["sums.jsonl:2", "JSON"]),
        pytest.param(
            chat_row("1 + 1", "2") + '{"other": 1}\n', ["sums.jsonl:2", "messages"], marks=pytest.mark.slow
        ),
        pytest.param("\n\n", ["sums.jsonl", "no row"], marks=pytest.mark.exhaustive),
    ],
    ids=["not JSON", "a missing field", "only blank lines"],
)
def test_bad_rows_are_named_with_file_and_line(project, text, messages):
    before = artifacts_of(project, "sft")
    (project.folder / "data" / "sums.jsonl").write_text(text)
    done = run(project)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    failed = next(line for line in done.stderr.splitlines() if "FAILED" in line)
    said = done.stderr[done.stderr.index(failed) :]
    for message in messages:
        assert message in said, said
    assert artifacts_of(project, "sft") == before
    assert project.plan()["dataset_echoes"].state == "cached"


@pytest.mark.slow
def test_a_failure_is_in_the_json_and_what_follows_is_skipped(project):
    (project.folder / "data" / "sums.jsonl").write_text("{\n")
    done = run(project, "--json")
    assert done.returncode == 1
    nodes = {node["node"]: node for node in json.loads(done.stdout)["nodes"]}
    assert nodes["dataset_sums"]["state"] == "failed" and "sums.jsonl" in nodes["dataset_sums"]["message"]
    assert nodes["tokenized_sums"]["state"] == nodes["quantized"]["state"] == "skipped"
    assert nodes["dataset_echoes"]["state"] == nodes["evaluation_of_base"]["state"] == "cached"


@pytest.mark.parametrize("override", ["sequence_len=-1", "learnin_rate=1", "datasets[0].path=nowhere.jsonl"])
def test_a_wrong_config_stops_before_anything_runs(fresh_project, override):
    done = run(fresh_project, f"--{override}")
    assert done.returncode == 1 and "pipeline.yml:" in done.stderr and "Traceback" not in done.stderr
    assert not (fresh_project.state / "artifacts").exists()


@contextmanager
def disk(folder: Path, options: str):
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    with disk(tmp_path / "disk", "size=3m") as folder:
        yield folder


# What is met first: the cache of hashes, Dagster's schema, its events, and a stage's own files.
@pytest.mark.parametrize(
    "size",
    ["8k", pytest.param("200k", marks=pytest.mark.exhaustive), pytest.param("500k", marks=pytest.mark.slow)],
)
def test_a_disk_that_fills_up_under_dagster_is_one_error_and_what_is_finished_is_kept(
    fresh_project, tmp_path, size
):
    with disk(tmp_path / "disk", f"size={size}") as folder:
        project = Project(fresh_project.folder, folder / "state")
        done = run(project, command="preprocess")
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith("the disk is full: ") and "cache prune" in last
        assert "Exception" not in done.stderr
        finished = {name for name, item in project.plan().items() if item.state == "cached"}
        told = {line.split(":")[0] for line in done.stderr.splitlines() if ": computed in" in line}
        assert told <= finished  # the full disk may have taken Dagster's event of the last one
        if size != "500k":
            return
        subprocess.run(["mount", "-o", "remount,size=30m", str(folder)], check=True)
        again = run(project, "--json", command="preprocess")
        assert again.returncode == 0, again.stderr
        states = {node["node"]: node["state"] for node in json.loads(again.stdout)["nodes"]}
        assert {name for name, state in states.items() if state == "cached"} == finished


@pytest.mark.slow
def test_a_read_only_store_can_be_looked_at_and_says_why_nothing_is_added(project, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["mount", "--bind", str(project.state), str(store)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(store)], check=True)
        for command in (["plan", str(project.yaml)], ["status"], ["cache", "ls"], ["run", str(project.yaml)]):
            done = subprocess.run(
                [*CLI, *command, "--state", str(store)], capture_output=True, text=True, cwd=tmp_path
            )
            assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
        for command in (
            ["run", str(project.yaml), "--learning_rate=0.5"],
            ["cache", "prune"],
            ["ui", str(project.folder)],
        ):
            done = subprocess.run(
                [*CLI, *command, "--state", str(store)], capture_output=True, text=True, cwd=tmp_path
            )
            assert done.returncode == 1 and "may not be written" in done.stderr, done.stderr
            assert "--state" in done.stderr and "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error_and_publishes_nothing(fresh_project, small_disk):
    rows = fresh_project.folder / "data" / "sums.jsonl"
    rows.write_text("".join(chat_row(f"{n} + 1", str(n + 1) + "x" * 400) for n in range(12_000)))
    project = Project(fresh_project.folder, small_disk / "state")
    environment = {**os.environ, "DAGSTER_HOME": str(fresh_project.folder)}
    done = subprocess.run(
        [*CLI, "run", str(project.yaml), "--state", str(project.state)],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    assert "disk is full" in done.stderr and "cache prune" in done.stderr, done.stderr
    assert not artifacts_of(project, "dataset") or project.plan()["dataset_sums"].state == "run"


def test_a_flipped_byte_is_found_set_aside_and_computed_again(project):
    model = project.plan()["merged"].cached.data / "model.safetensors"
    contents = bytearray(model.read_bytes())
    contents[-1] ^= 1
    model.chmod(0o644)
    model.write_bytes(contents)
    state = ["--state", str(project.state)]
    found = subprocess.run([*CLI, "cache", "verify", *state], capture_output=True, text=True)
    assert found.returncode == 1 and str(model) in found.stdout and "set aside" in found.stdout
    assert {name for name, item in project.plan().items() if item.state == "run"} >= {"merged"}
    finished = project.run()
    assert finished["merged"].state == "computed" and finished["quantized"].state == "cached"
    again = subprocess.run([*CLI, "cache", "verify", *state, "--json"], capture_output=True, text=True)
    assert again.returncode == 0 and json.loads(again.stdout)["damaged"] == []


@pytest.mark.slow
def test_an_interrupt_ends_the_run_and_says_so(fresh_project):
    fresh_project.edit(max_steps=100_000)
    process = subprocess.Popen(
        [*CLI, "run", str(fresh_project.yaml), "--state", str(fresh_project.state)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    for line in process.stderr:
        if line.startswith("dataset_sums: started"):
            process.send_signal(signal.SIGTERM)
            break
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err and "Traceback" not in err


def test_unknown_commands_and_arguments_are_usage_errors(project):
    for arguments in (
        ["nonsense"],
        ["run"],
        ["run", str(project.yaml), "stray"],
        ["status", "--learning_rate=1"],
    ):
        assert subprocess.run([*CLI, *arguments], capture_output=True).returncode == 2
