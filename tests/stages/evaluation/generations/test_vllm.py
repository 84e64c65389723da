"""vLLM itself, on a CPU, as the engine of generations: what it answers is what transformers answers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from stages.models.merged.test_merge import make_adapter
from support.own_environment import ROOT, python_with_vllm
from support.tiny_model import Heard, evaluation_data, make_model, random_rows, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answered import read_answered
from tunemill.stages.evaluation.generations.config import GenerationsConfig

pytest.importorskip("openai")
# A stage that holds the server that it has started.
HELD = """
import sys
from pathlib import Path
from tunemill.stages.artifacts import Adapter, Model
from tunemill.stages.evaluation.generations.config import GenerationsConfig
from tunemill.stages.evaluation.generations.vllm_body import own_server
from tunemill.stages.report import Report, Workspace
python, model, adapter, folder = sys.argv[1:]
config, out = GenerationsConfig(engine="vllm", vllm_python=python), Workspace(*[Path(folder)] * 3)
with own_server(config, Model(Path(model)), Adapter(Path(adapter)), 64, out, Report(lambda _: None)) as client:
    print(client.url, client.model, client.started.process.pid, flush=True)
    sys.stdin.read()
"""


def answers(folder, model, data, adapter=None, **settings):
    from tunemill.stages.evaluation.generations.body import generate

    out, heard = workspace(folder), Heard()
    config = GenerationsConfig(max_new_tokens=12, **settings)
    generate(config, Model(model), adapter, data, out, heard.report)
    return list(read_answered(out.data / "generations.jsonl")), heard


def group(pid):
    """The processes of a group."""
    said = subprocess.run(["ps", "-eo", "pgid,stat"], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()[1:]]
    return [row for row in rows if row[0] == str(pid) and not row[1].startswith("Z")]


@pytest.mark.slow
def test_vllm_answers_as_transformers_does_and_is_known_by_what_it_has(tmp_path: Path) -> None:
    python = str(python_with_vllm())
    # vLLM's products on CPUs want heads of 32 and more.
    model = make_model(tmp_path / "model", hidden_size=64)
    other = make_model(tmp_path / "other", hidden_size=64, seed=1)
    adapter = make_adapter(tmp_path / "adapter", model, target_modules=["q_proj", "v_proj", "down_proj"])
    data = evaluation_data(tmp_path / "data", random_rows(20, longest=24))

    (tmp_path / "held").mkdir()
    command = [sys.executable, "-c", HELD, python, *map(str, (model, adapter.path, tmp_path / "held"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as stage:
        try:
            url, name, pid = stage.stdout.readline().split()
            _of_a_server_that_runs(url, name, tmp_path, model, other, adapter, data)
            assert len(group(pid)) >= 3, "the server, its engine and its worker"
        finally:
            stage.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while group(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not group(pid), "a stage that is killed leaves no server"


def _of_a_server_that_runs(url, name, folder, model, other, adapter, data):
    def given(which):
        return {"kind": "vllm", "url": url, "model": which}

    base = f"base-of-{name}"
    plain, _ = answers(folder / "plain", model, data)
    served, _ = answers(folder / "served", model, data, engine=given(base))
    assert served == plain, "token by token, with ends and texts"
    beside, _ = answers(folder / "beside", model, data, adapter)
    adapted, heard = answers(folder / "adapted", model, data, adapter, engine=given(name))
    assert adapted == beside and adapted != plain
    assert any(f"{name} is this model" in event["message"] for event in heard.of("log"))
    with pytest.raises(SettingError, match="answers as the base does"):
        answers(folder / "base", model, data, adapter, engine=given(base))
    with pytest.raises(SettingError, match=f"{name} is another model"):
        answers(folder / "wrong", model, data, engine=given(name))
    with pytest.raises(SettingError, match=f"{base} is another model"):
        answers(folder / "other", other, data, engine=given(base))
    drawn = {"do_sample": True, "temperature": 1.2, "top_p": 0.9, "engine": given(base)}
    one, two, three = (
        [row.answer_ids for row in answers(folder / place, model, data, **drawn, **more)[0]]
        for place, more in (("d1", {}), ("d2", {"batch_size": 1}), ("d3", {"seed": 1}))
    )
    assert one == two and sum(a == b for a, b in zip(one, three, strict=True)) < 5
