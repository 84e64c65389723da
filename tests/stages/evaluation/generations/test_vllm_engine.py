"""Answers of vLLM, asked by its protocol: of a server that runs already, and of one that is started."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from stages.models.merged.test_merge import make_adapter
from support.own_environment import ROOT
from support.tiny_model import Heard, evaluation_data, make_model, random_rows, workspace
from support.vllm_stand_in import StandIn, serving, stand_in_environment, sums
from transformers import AutoModelForCausalLM, GenerationConfig

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answered import read_answered
from tunemill.stages.evaluation.generations.body import generate
from tunemill.stages.evaluation.generations.config import GenerationsConfig
from tunemill.stages.evaluation.sampling_keys import seed_of

pytest.importorskip("openai")
ROWS = random_rows(7, longest=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("answering") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return evaluation_data(tmp_path_factory.mktemp("asked"), ROWS)


def answers(folder, model, data, adapter=None, **settings):
    out, heard = workspace(folder), Heard()
    config = GenerationsConfig(max_new_tokens=6, **settings)
    generate(config, Model(model), adapter, data, out, heard.report)
    return list(read_answered(out.data / "generations.jsonl")), heard


@cache
def of_model(folder):
    """What a real model, if a small one, answers, and the log-probabilities that it gives to a prompt."""
    loaded = AutoModelForCausalLM.from_pretrained(folder).eval()

    def answer(prompt, asked):
        ends = asked.get("stop_token_ids") or None
        how = GenerationConfig(max_new_tokens=asked["max_tokens"], eos_token_id=ends, pad_token_id=0)
        with torch.no_grad():
            return loaded.generate(torch.tensor([prompt]), generation_config=how)[0, len(prompt) :].tolist()

    def log_p(prompt):
        with torch.no_grad():
            found = loaded(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
        return found.gather(-1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()

    return {"answer": answer, "log_p": log_p}


def of_transformers(folder, **settings):
    return serving(StandIn(**of_model(folder), **settings))


def given(server, **settings):
    return {"kind": "vllm", "url": f"{server.url}/v1", **settings}


def test_a_server_that_has_the_model_answers_as_transformers_does(tmp_path, model, data, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    plain, _ = answers(tmp_path / "plain", model, data)
    with of_transformers(model) as server:
        served, heard = answers(tmp_path / "served", model, data, engine=given(server))
    assert served == plain and heard.summary["generated_tokens"] == sum(one.tokens for one in plain)
    assert any("mine is this model" in event["message"] for event in heard.of("log"))
    asked = [one for one in server.asked if "prompt_logprobs" not in one]
    assert [one["prompt"] for one in sorted(asked, key=lambda one: one["prompt"])] == sorted(
        one.prompt_ids for one in plain
    )
    assert all(
        one["temperature"] == 0 and one["ignore_eos"] and one["repetition_penalty"] == 1 for one in asked
    )
    assert set(server.keys) == {"Bearer sk-of-the-test"}


def test_drawn_answers_have_a_seed_of_each_row(tmp_path, model, data):
    def drawn(folder, **settings):
        how = {
            "do_sample": True,
            "temperature": 0.7,
            "top_k": 5,
            "seed": 3,
            "engine": given(server),
            **settings,
        }
        return [one.answer_ids for one in answers(tmp_path / folder, model, data, **how)[0]]

    with of_transformers(model) as server:
        server.answer = sums
        all_at_once = drawn("all")
        asked = [one for one in server.asked if "prompt_logprobs" not in one]
        assert {one["seed"] for one in asked} == {seed_of(3, row) for row in range(7)}
        assert all((one["temperature"], one["top_k"], one["top_p"]) == (0.7, 5, 1.0) for one in asked)
        assert drawn("one", batch_size=1) == all_at_once and drawn("other", seed=4) != all_at_once


@pytest.mark.parametrize(
    ("server", "engine", "words"),
    [
        ({}, {"model": "yours"}, "serves no model yours, but mine"),
        ({"models": ("mine", "yours")}, {}, "serves mine, yours. Say which with `model`"),
        ({"max_model_len": 11}, {}, "takes 11 tokens of prompt and answer together, and 12 may be needed"),
        ({}, {"version": "0.30.0"}, "is vLLM 0.32.0, and version says 0.30.0"),
        ({"log_p": lambda prompt: [-5.0] * (len(prompt) - 1)}, {}, "mine is another model"),
        ({"log_p": lambda prompt: [float("nan")] * (len(prompt) - 1)}, {}, "mine is another model"),
        ({"reply": lambda _: {"choices": [{"text": "4"}]}}, {}, "does not tell which tokens"),
        ({"reply": lambda _: {"error": "no"}}, {}, "is none of vLLM's completions"),
    ],
)  # fmt: skip
def test_a_server_with_something_else_is_refused(tmp_path, model, data, server, engine, words):
    with of_transformers(model) as running:
        for name, value in server.items():
            setattr(running, name, value)
        with pytest.raises(SettingError, match=words):
            answers(tmp_path, model, data, engine=given(running, **engine))
    with pytest.raises(SettingError, match="does not tell which vLLM answers"):
        GenerationsConfig(engine=given(running)).used_tools()


def test_a_server_that_knows_nothing_of_the_adapter_is_refused(tmp_path, model, data):
    adapter = make_adapter(tmp_path / "adapter", model)
    with of_transformers(model) as server, pytest.raises(SettingError, match="answers as the base does"):
        answers(tmp_path / "out", model, data, adapter, engine=given(server))


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def ended(pids, seconds=10):
    until = time.monotonic() + seconds
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(lives, pids))


def told_by(log):
    return json.loads(log.read_text().splitlines()[0])


def test_a_server_that_is_started_ends_with_the_answers(tmp_path, model, data, monkeypatch):
    monkeypatch.setenv("VLLM_USE_V1", "0")
    monkeypatch.setenv("PYTHONPATH", "/nothing/of/theirs")
    python = str(stand_in_environment(tmp_path / "environment"))
    adapter = make_adapter(tmp_path / "adapter", model)
    found, _ = answers(tmp_path / "out", model, data, adapter, engine="vllm", vllm_python=python)
    assert [one.answer_ids[0] for one in found] == [3 + sum(one.prompt_ids) % 400 for one in found]
    told = told_by(tmp_path / "out" / "logs" / "vllm.log")
    words = " ".join(told["words"])
    assert words.startswith(f"serve {model} --served-model-name base-of-tunemill-")
    longest = max(len(one.prompt_ids) for one in found) + 6
    assert f"--dtype float32 --max-model-len {longest} --seed 0 --generation-config vllm" in words
    assert "--enable-lora --max-lora-rank 8 --lora-modules tunemill-" in words and "--host 127.0.0.1" in words
    assert told["environment"]["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "/nothing/of/theirs" not in told["environment"]["PYTHONPATH"]
    assert ended(told["pids"])


def test_why_a_server_does_not_start_is_told(tmp_path, model, data):
    python = str(
        stand_in_environment(tmp_path / "environment", fails="ValueError: head size 12 is not supported.")
    )
    with pytest.raises(
        SettingError, match=r"did not start: ValueError: head size 12 is not supported. All that it"
    ):
        answers(tmp_path / "out", model, data, engine="vllm", vllm_python=python)
    assert "See root cause" in (tmp_path / "out" / "logs" / "vllm.log").read_text()
    nothing = tmp_path / "python"
    with pytest.raises(SettingError, match=r"did not start: env: .*python"):
        answers(tmp_path / "other", model, data, engine="vllm", vllm_python=str(nothing))


HELD = """
import sys
from pathlib import Path
from tunemill.stages.models.vllm.started import started
folder = Path(sys.argv[2])
name = "mine"
with started(["model", "--served-model-name", name], name, python=sys.argv[1], folder=folder, log=folder / "log",
             seconds=30) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


def test_a_stage_that_is_killed_leaves_no_server(tmp_path):
    python = stand_in_environment(tmp_path / "environment")
    command = [sys.executable, "-c", HELD, str(python), str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as stage:
        assert stage.stdout.readline().startswith("http://127.0.0.1:")
        pids = told_by(tmp_path / "log")["pids"]
        assert all(map(lives, pids))
        stage.send_signal(signal.SIGKILL)
    try:
        assert ended(pids)
    finally:
        for pid in filter(lives, pids):
            os.kill(pid, signal.SIGKILL)


def test_the_key_holds_the_engine_and_its_version_and_not_where_it_is(tmp_path):
    python = str(stand_in_environment(tmp_path / "environment"))

    def key(**settings):
        config = GenerationsConfig(**settings)
        return config.semantic(), dict(config.used_tools())

    assert key() == key(vllm_python=python) == ({}, {})
    assert key(engine="vllm", vllm_python=python) == ({"engine": {"kind": "vllm"}}, {"vllm": "0.32.0"})
    own = key(engine={"kind": "vllm", "gpu_memory_utilization": 0.5, "start_seconds": 9}, vllm_python=python)
    assert own == key(engine="vllm", vllm_python=python)
    assert (
        key(engine={"kind": "vllm", "dtype": "float16"}, vllm_python=python)[0]["engine"]["dtype"]
        == "float16"
    )
    with serving(StandIn(version="0.33.0+cu130")) as server:
        asked = key(engine=given(server))
    assert asked == ({"engine": {"kind": "vllm", "given": True}}, {"vllm": "0.33.0"})
    assert asked == key(engine={"kind": "vllm", "url": "http://other:1", "model": "m", "version": "0.33.0"})
    assert GenerationsConfig(engine="vllm", eval_batch_size=3).rows_at_once == 64


def test_a_vllm_that_is_not_there_is_said_in_check(tmp_path):
    def faults(**settings):
        return [fault.reason for fault in GenerationsConfig(engine="vllm", **settings).faults()]

    (missing,) = faults()
    assert "vLLM is not installed beside tunemill" in missing and "pipeline.vllm_python: /path" in missing
    assert faults(vllm_python=str(tmp_path / "python")) == [
        f"{tmp_path / 'python'} runs no Python. Name the Python of an environment in which vLLM is installed"
    ]
    assert "has no vLLM beside it" in faults(vllm_python=sys.executable)[0]
    assert faults(vllm_python=str(stand_in_environment(tmp_path / "environment"))) == []
