"""`tunemill inference`: which model answers, what it is asked, and what is said where it cannot."""

import io
import json
import shutil
import sys

import pytest
from support.project import make_project
from support.terminal import run_in_terminal

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.model_places import models_of

SHORT = ["--max-new-tokens", "6"]


@pytest.fixture
def call(finished_project, capsys, monkeypatch):
    def call(*arguments, code=0, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        state = ["--state", str(finished_project.state)]
        assert main(["inference", str(finished_project.yaml), *state, *SHORT, *map(str, arguments)]) == code
        return capsys.readouterr()

    return call


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.jsonl"
    messages = [{"role": "system", "content": "sum"}, {"role": "user", "content": "1 + 1"}]
    rows = [{"prompt": "2 + 2"}, {"messages": messages}, "say a"]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return file


def test_the_models_that_there_are(finished_project):
    found = models_of(load_pipeline(finished_project.yaml))
    assert list(found) == ["merged", "trained", "base", "quantized"]
    assert found["trained"].nodes == {"base_model", "trained"} and found["merged"].adapter is None
    full = models_of(load_pipeline(finished_project.yaml, ["adapter=null"]))
    assert list(full) == ["trained", "base", "quantized"] and full["trained"].model == "trained"


def test_a_file_is_answered_line_by_line(call, prompts):
    rows = [json.loads(line) for line in call("--prompts", prompts).out.splitlines()]
    assert [row["line"] for row in rows] == [1, 2, 3] and rows[1]["prompt"][0]["role"] == "system"
    assert all(row["finish_reason"] in ("stop", "length") and row["tokens"] <= 6 for row in rows)
    both = json.loads(
        call("--prompts", prompts, "--of", "quantized", "--against", "base").out.splitlines()[0]
    )
    assert set(both["answers"]) == {"quantized", "base"}


def test_what_is_piped_in_is_one_prompt(call, prompts):
    rows = [json.loads(line) for line in call("--prompts", prompts).out.splitlines()]
    assert call(stdin="2 + 2\n").out == f"{rows[0]['answer']}\n"
    text = call("--prompter", "None", stdin="2 + 2\n").out
    assert text != f"{rows[0]['answer']}\n"


def test_a_folder_and_an_adapter_of_ones_own(call, finished_project, prompts, tmp_path):
    expected = call("--prompts", prompts).out
    folder, adapter = tmp_path / "completed", tmp_path / "adapter"
    shutil.copytree(finished_project.plan()["merged"].cached.data, folder)
    shutil.copytree(finished_project.plan()["trained"].cached.data, adapter)
    assert call("--prompts", prompts, "--base-model", folder).out == expected
    assert call("--prompts", prompts, "--lora-model-dir", adapter).out == expected
    own = finished_project.folder / "outputs" / "trained"
    assert call("--prompts", prompts, "--lora-model-dir", own).out == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--of", "quantised"], "did you mean quantized"),
        (["--against", "exported"], "makes no such model"),
        (["--seed", "1"], "add --temperature 0.7"),
        (["--temperature", "1", "--seed", str(2**63)], "64 bits"),
        (["--prompter", "None", "--system", "x"], "no system prompt"),
        (["--temperature", "-1"], "0 or more"),
        (["--temperature", "1", "--top-p", "0"], "more than 0"),
        (["--max-new-tokens", "0"], "1 or more"),
        (["--stop", ""], "ends every answer"),
        (["--prompter", "AlpacaPrompter"], "only None"),
        (["--base-model", "nowhere"], "no folder here"),
        (["--lora-model-dir", "nowhere"], "no adapter"),
        (["--base-model", "x", "--of", "base"], "take --of"),
        (["--learning-rate", "0.5"], "not computed yet"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(arguments, said, call):
    found = call(*arguments, code=1, stdin="x").err
    assert said in found and "loading" not in found


def test_a_bad_line_is_named(call, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n{"question": "b"}\n')
    found = call("--prompts", tmp_path / "p.jsonl", code=1)
    assert "p.jsonl:2: write a text" in found.err and "loading" not in found.err and not found.out
    (tmp_path / "p.txt").write_bytes(b"a\n\xff")
    assert "line 2: the byte 0xff" in call("--prompts", tmp_path / "p.txt", code=1).err
    (tmp_path / "p.txt").write_text("a\n\nb")
    lines = call("--prompts", tmp_path / "p.txt").out.splitlines()
    assert [json.loads(line)["line"] for line in lines] == [1, 3]


def test_a_system_prompt_is_said_before_messages_too(call, prompts, tmp_path):
    expected = json.loads(call("--prompts", prompts).out.splitlines()[1])
    (tmp_path / "p.jsonl").write_text('{"messages": [{"role": "user", "content": "1 + 1"}]}')
    found = json.loads(call("--prompts", tmp_path / "p.jsonl", "--system", "sum").out)
    assert found["answer"] == expected["answer"]
    assert "prompts.jsonl:2: it has a system" in call("--prompts", prompts, "--system", "x", code=1).err


@pytest.mark.parametrize(
    ("node", "option", "file", "content", "said"),
    [
        ("trained", "--lora-model-dir", "adapter_config.json", "{", "no adapter"),
        ("trained", "--lora-model-dir", "adapter_model.safetensors", None, "as safetensors"),
        ("trained", "--lora-model-dir", "adapter_model.safetensors", "x", "not a complete"),
        ("merged", "--base-model", "model.safetensors", "x", "not a complete"),
        ("merged", "--base-model", "config.json", "{", "no JSON object"),
    ],
)
def test_a_damaged_folder_is_named_before_anything_is_loaded(
    node, option, file, content, said, call, finished_project, tmp_path
):
    folder = tmp_path / "folder"
    shutil.copytree(finished_project.plan()[node].cached.data, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    found = call(option, folder, code=1, stdin="x").err
    assert said in found and "loading" not in found


def test_training_is_never_started_by_surprise(tmp_path, capsys, monkeypatch):
    project = make_project(tmp_path / "new")
    monkeypatch.setattr(sys, "stdin", io.StringIO("x"))
    assert main(["inference", str(project.yaml), "--state", str(project.state)]) == 1
    said = capsys.readouterr().err
    assert "trained, merged" in said and "--yes" in said and not list(project.store.artifacts())


@pytest.mark.slow
def test_a_chat_in_a_terminal(finished_project):
    """Ctrl-C stops an answer and not the chat; Ctrl-D leaves."""
    command = [
        sys.executable, "-m", "tunemill.pipelines.cli", "inference", str(finished_project.yaml),
        "--state", str(finished_project.state), "--against", "base", "--max-new-tokens", "100000",
    ]  # fmt: skip
    terminal = run_in_terminal(
        command,
        finished_project.folder,
        typed=[
            ("> ", "/help\r"),
            ("Ctrl-D leaves.", "2 + 2\r"),
            ("merged: ", "\x03"),
            ("[stopped]", ""),
            ("base: ", "\x03"),
            ("[stopped]", "/reset\r"),
            # Only behind the prompt: a terminal that edits no line yet would swallow the key.
            ("forgotten", ""),
            ("> ", "\x04"),
        ],
    )
    assert terminal.returncode == 0, terminal.text
    assert terminal.text.count("[stopped]") == 2 and "Traceback" not in terminal.text
