"""`tunemill vllm-serve`: the command line of vLLM that a YAML means."""

import json
import shlex
import shutil

import pytest

from tunemill.pipelines.cli import main
from tunemill.pipelines.commands.vllm_command import vllm_arguments
from tunemill.pipelines.config.use_config import VllmSettings
from tunemill.stages.errors import SettingError


def words(settings, model, adapter=None):
    return vllm_arguments(VllmSettings(**settings), "mine", model, adapter, "127.0.0.1", 8000)


def test_every_key_of_the_block_has_its_option(tmp_path):
    block = {
        "dtype": "bfloat16", "tensor_parallel_size": 2, "data_parallel_size": 3, "gpu_memory_utilization": 0.85,
        "max_model_len": 4096, "enable_prefix_caching": True, "reasoning_parser": "qwen3", "enforce_eager": True,
        "worker_extension_cls": "mine.Worker",
    }  # fmt: skip
    assert words(block, tmp_path) == [
        str(tmp_path), "--host", "127.0.0.1", "--port", "8000", "--served-model-name", "mine",
        "--dtype", "bfloat16", "--tensor-parallel-size", "2", "--data-parallel-size", "3",
        "--gpu-memory-utilization", "0.85", "--max-model-len", "4096", "--reasoning-parser", "qwen3",
        "--worker-extension-cls", "mine.Worker", "--enable-prefix-caching", "--enforce-eager",
    ]  # fmt: skip
    assert words({"enable_prefix_caching": False, "enforce_eager": False}, tmp_path)[7:] == [
        "--no-enable-prefix-caching"
    ]
    read_elsewhere = {"host", "port", "device", "enable_reasoning", "serve_module"}
    assert VllmSettings.model_fields.keys() == block.keys() | read_elsewhere


def adapter_of(folder, **settings):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **settings}))
    return folder


@pytest.mark.parametrize(
    ("settings", "room"), [({}, "8"), ({"r": 16}, "16"), ({"rank_pattern": {"q": 20}}, "32")]
)
def test_an_adapter_beside_its_base(tmp_path, settings, room):
    folder = adapter_of(tmp_path, **settings)
    assert words({}, tmp_path, folder)[6:] == [
        "base-of-mine", "--enable-lora", "--max-lora-rank", room, "--lora-modules", f"mine={folder}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"peft_type": "IA3"},
        {"r": 600},
        {"init_lora_weights": "loftq"},
    ],
)
def test_an_adapter_that_vllm_cannot_take_is_refused(tmp_path, settings):
    with pytest.raises(SettingError, match="--of merged"):
        words({}, tmp_path, adapter_of(tmp_path, **settings))


def test_the_command_is_printed(finished_project, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    call = [str(finished_project.yaml), "--state", str(finished_project.state)]

    def printed(*arguments):
        assert main([*arguments, "--print"]) == 0
        return shlex.split(capsys.readouterr().out)

    found = printed(
        "vllm-serve", *call, "vllm={port: 9000, max_model_len: 99}", "--gpu-memory-utilization", "0.5"
    )
    merged = str(finished_project.plan()["merged"].cached.data)
    assert found[1:] == [
        "serve", merged, "--host", "127.0.0.1", "--port", "9000", "--served-model-name", "merged",
        "--gpu-memory-utilization", "0.5", "--max-model-len", "99",
    ]  # fmt: skip
    beside = printed("serve", *call, "--engine", "vllm", "--of", "trained", "--port", "1")
    trained = str(finished_project.plan()["trained"].cached.data)
    assert beside[-1] == f"trained={trained}" and "--enable-lora" in beside
    assert main(["serve", *call, "--engine", "vllm", "--temperature", "1"]) == 1
    assert "not passed on" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["vllm-serve"], ["serve", "--engine", "vllm"]])
def test_without_vllm_it_is_said_how_to_install_it(command, finished_project, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    name, *more = command
    assert main([name, str(finished_project.yaml), *more, "--state", str(finished_project.state)]) == 1
    assert "pip install vllm" in capsys.readouterr().err


def test_a_program_on_path_takes_the_place_of_the_command(finished_project, tmp_path):
    """A stand-in named vllm, on PATH, is called with the words and keeps the process's number."""
    import os
    import subprocess
    import sys

    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "$$ $1 $2"\n')
    program.chmod(0o755)
    command = [
        sys.executable, "-m", "tunemill.pipelines.cli", "vllm-serve", str(finished_project.yaml),
        "--state", str(finished_project.state),
    ]  # fmt: skip
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(command, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True)
    said, _ = process.communicate(timeout=60)
    merged = finished_project.plan()["merged"].cached.data
    assert said.splitlines()[-1] == f"{process.pid} serve {merged}"
