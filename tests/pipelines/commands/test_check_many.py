"""`tunemill check` of several files and folders: every problem of all, each file once, and clashes."""

import json
import subprocess
import sys
import time

import pytest
from support.project import make_project

from tunemill.pipelines.cli import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with `configs/one.yml` and `configs/below/two.yml`, which are right."""
    project = make_project(tmp_path / "configs")
    text = project.yaml.read_text()
    project.yaml.unlink()
    (tmp_path / "configs" / "one.yml").write_text(text)
    below = tmp_path / "configs" / "below"
    below.mkdir()
    (below / "two.yml").write_text(
        text.replace("data/", "../data/").replace("model: model", "model: ../model")
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path / "configs"


@pytest.fixture
def check(capsys):
    """Run the command; its exit code, lines of stdout and lines of stderr."""

    def call(*arguments):
        code = main(["check", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err.splitlines()

    return call


@pytest.fixture
def check_json(capsys):
    """The same with --json: the exit code, and the document."""

    def call(*arguments):
        code = main(["check", "--json", *map(str, arguments)])
        return code, json.loads(capsys.readouterr().out)

    return call


def add(path, *lines):
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def test_files_and_folders_without_a_problem(folder, check, check_json):
    assert check("configs") == (0, ["2 files: 2 without a problem"], [])
    assert check("configs/one.yml", "configs/below/two.yml")[1] == ["2 files: 2 without a problem"]
    # Each file once, however it is named.
    again = ("configs/one.yml", "configs", folder, "configs/below/../one.yml")
    assert check(*again)[1] == ["2 files: 2 without a problem"]
    assert check_json("configs/below") == (0, [{"file": "configs/below/two.yml", "problems": []}])
    assert check("configs/below")[1] == ["1 file: 1 without a problem"]


def test_one_file_is_said_as_before(folder, check, check_json):
    assert check("configs/one.yml") == (0, ["configs/one.yml: no problem; 18 nodes"], [])
    assert check_json("configs/one.yml") == (0, [])
    add(folder / "one.yml", "learnin_rate: 3")
    code, (problem,) = check_json("configs/one.yml")
    assert code == 1 and problem["path"] == "learnin_rate"


def test_every_problem_of_every_file_is_told(folder, check, check_json):
    add(folder / "one.yml", "learnin_rate: 3", "optimzer: sgd")
    (folder / "broken.yaml").write_text("base_model: [\n")
    (folder / "notes.yml").write_text("this: is no pipeline\n")
    (folder / "held.yml").write_text((folder / "one.yml").read_text().replace("held_out.j", "held_uot.j"))
    code, out, err = check("configs", "configs/notes.yml", "nowhere.yml")
    assert code == 1 and out == ["6 files: 1 without a problem, 5 with 9 problems"]
    told = [line for line in err if line.startswith(("configs/", "nowhere"))]
    assert sum("one.yml" in line for line in told) == 2 and sum("held.yml" in line for line in told) == 3
    assert any("did you mean `data/held_out.jsonl`?" in line for line in told)
    assert "nowhere.yml:1:1: cannot be read: no such file or directory" in told
    assert "learnin_rate: 3" in err and "^~~~~~~~~~~~" in err, "the place is marked as for one file"
    code, document = check_json("configs")
    # The pipelines of a folder come as the UI has them: those that lie less deep first.
    names = ["broken.yaml", "held.yml", "one.yml", "below/two.yml"]
    assert code == 1 and [item["file"] for item in document] == [f"configs/{name}" for name in names]
    problems = {item["file"]: [problem["path"] for problem in item["problems"]] for item in document}
    assert problems["configs/one.yml"] == ["learnin_rate", "optimzer"]
    assert problems["configs/below/two.yml"] == []


def test_notes_are_told_and_are_no_problems(folder, check, check_json):
    add(folder / "one.yml", "tf32: false", "strict: false")
    code, out, err = check("configs")
    code_json, document = check_json("configs")
    notes = document[0]["problems"]
    assert (code, code_json) == (0, 0) and not err and out[-1] == "2 files: 2 without a problem"
    assert len(notes) == len(out) - 1 and all("one.yml" in line and "note: " in line for line in out[:-1])


def test_overrides_count_for_every_file(folder, check, check_json):
    code, document = check_json("configs", "--learning_rate=fast", "micro_batch_size=2")
    assert code == 1 and [len(item["problems"]) for item in document] == [1, 1]
    assert {item["problems"][0]["override"] for item in document} == {"--learning_rate=fast"}
    assert check("configs/one.yml", "--learning_rate", "0.1", "configs/below/two.yml")[0] == 0
    assert check("learning_rate=0.1", "configs/one.yml", "--json", "configs/below/two.yml")[0] == 0
    # The files of a sweep may look like overrides.
    for name in ("learning_rate=1.yml", "learning_rate=2.yml"):
        (folder.parent / name).write_text((folder / "one.yml").read_text())
    code, document = check_json("learning_rate=1.yml", "learning_rate=2.yml")
    assert [item["file"] for item in document] == ["learning_rate=1.yml", "learning_rate=2.yml"]


def test_a_folder_without_a_pipeline_is_an_error(folder, check, check_json):
    (folder / "data" / "other.yml").write_text("on: [push]\n")
    code, _, err = check("configs/data")
    assert code == 1 and err[0].startswith("configs/data: there is no pipeline in this folder")
    code, document = check_json("configs/data", "configs/one.yml")
    assert code == 1 and [item["file"] for item in document] == ["configs/data", "configs/one.yml"]
    assert len(document[0]["problems"]) == 1 and document[1]["problems"] == []


def test_hidden_files_and_stores_are_passed_over(folder, check):
    for name in (".tunemill/x.yml", ".hidden.yml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("[")
    (folder / "link").symlink_to(folder / "below")
    (folder / "folder.yml").mkdir()
    assert check("configs")[1] == ["2 files: 2 without a problem"]


def test_pipelines_of_a_folder_that_clash_are_told(folder, check_json):
    add(folder / "below" / "two.yml", "pipeline:", "  name: one")
    code, document = check_json("configs")
    (problem,) = document[1]["problems"]
    assert code == 1 and problem["path"] == "pipeline.name" and problem["kind"] == "conflict"
    assert "name 'one' is taken by configs/one.yml" in problem["message"]
    assert problem["line"] == len((folder / "below" / "two.yml").read_text().splitlines())
    # Named one by one they need not be shown beside each other.
    assert check_json("configs/one.yml", "configs/below/two.yml")[0] == 0
    # Its name is taken also by what is not right for another reason.
    (folder / "data" / "sums.jsonl").rename(folder / "data" / "other.jsonl")
    _, document = check_json("configs")
    assert [[problem["path"] for problem in item["problems"]] for item in document] == [
        ["datasets[0].path"], ["datasets[0].path", "pipeline.name"],
    ]  # fmt: skip


def test_pipelines_of_a_folder_that_wait_for_each_other_are_told(folder, check):
    for name, needed in (("one", "two"), ("below/two", "one")):
        path = folder / f"{name}.yml"
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("base_", "reinit"))]
        path.write_text("\n".join([f"base_model: asset://{needed}/merged", *lines, ""]))
    code, out, err = check("configs")
    assert code == 1 and out == ["2 files: 0 without a problem, 2 with 2 problems"]
    assert "configs/one.yml:1:1: base_model: it waits for results of configs/below/two.yml" in err[0]


def test_secrets_in_overrides_are_not_shown(folder, check):
    code, out, err = check(folder, "output_dir=s3://me:hush-hush@bucket/x?sig=abcdef")
    assert code == 1 and "hush-hush" not in "".join(out + err) and len(err) >= 2


def test_sixty_files_take_about_a_second(folder):
    text = (folder / "one.yml").read_text()
    for number in range(58):
        (folder / f"more_{number}.yml").write_text(text)
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "check", str(folder)]
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "60 files: 60 without a problem\n"
    # A second on a quiet machine; several times that where it is busy.
    assert time.monotonic() - started < 6
