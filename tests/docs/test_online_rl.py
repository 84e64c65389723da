"""docs/online-rl.md: its YAML is trained, its rewards are asked, and its commands say what they say they do."""

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
from support.examples import ROOT
from support.openenv_servers import COUNTING, server_of
from support.own_environment import packages_with_openenv, packages_with_verifiers
from support.project import make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.training.online.loss import COUNTED_IN

PAGE = (ROOT / "docs" / "online-rl.md").read_text()
SMALL = {
    "base_model": "model",
    "reinit_weights": True,
    "max_steps": 2,
    "bf16": False,
    "output_dir": "outputs",
}


def blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.M | re.S)


def test_every_loss_is_on_it():
    rows = re.findall(r"^\| (`.*?) \| .* \| .* \|$", PAGE, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} >= COUNTED_IN.keys()


def test_the_yaml_of_ebft_is_accepted(tmp_path):
    project = make_project(tmp_path / "project")
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    (block,) = (one for one in blocks("yaml") if re.match(r"base_model: .*\nrl: ebft\n", one))
    project.yaml.write_text(re.sub(r"^base_model: .*\n", small, block))
    (project.folder / "data" / "solved.jsonl").write_text('{"input": "a", "output": "b"}\n')
    assert {"ebft", "prompts"} <= {node.stage.name for node in load_pipeline(project.yaml, []).nodes}


@pytest.mark.slow
def test_its_function_samples(tmp_path):
    project = make_project(tmp_path / "project")
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    project.yaml.write_text(re.sub(r"^base_model: .*\n", small, blocks("yaml")[0]))
    rows = [{"prompt": [{"role": "user", "content": f"{n} + 1"}], "answer": str(n + 1)} for n in range(8)]
    (project.folder / "data" / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (project.folder / "rewards.py").write_text(blocks("python")[0])
    (module,) = (one for one in blocks("python") if "def play" in one)
    (project.folder / "playing.py").write_text(module)
    changed = ("trl.max_completion_length=4", "trl.rollout_func=playing.play")
    assert {item.state for item in project.run(*changed).values()} == {"computed"}


@pytest.mark.slow
def test_its_environment_trains(tmp_path):
    project = make_project(tmp_path / "project")
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    (yaml,) = (one for one in blocks("yaml") if "environment_factory: ledger" in one)
    project.yaml.write_text(re.sub(r"^base_model: .*\n", small, yaml))
    (module,) = (one for one in blocks("python") if "class Ledger" in one)
    (project.folder / "ledger.py").write_text(module)
    rows = [{"prompt": [{"role": "user", "content": "Add up."}], "wanted": n} for n in range(8)]
    (project.folder / "data" / "sums.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model = project.folder / "model" / "config.json"
    model.write_text(json.dumps({**json.loads(model.read_text()), "max_position_embeddings": 4096}))
    changed = ("trl.max_completion_length=4", "sequence_len=2048")
    assert {item.state for item in project.run(*changed).values()} == {"computed"}


@pytest.mark.slow
def test_its_tasks_are_rows_and_rewards(tmp_path, monkeypatch):
    packages = packages_with_verifiers()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), packages]))
    project = make_project(tmp_path / "project")
    (module,) = (one for one in blocks("python") if "class SumTask" in one)
    (project.folder / "my_tasks.py").write_text(module)
    (command,) = (one.strip() for one in blocks("sh") if "taskset_rows" in one)
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, cwd=project.folder, check=True)  # noqa: S602
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    yaml = re.sub(r"reward_funcs: .*\n  reward_weights: .*", "reward_funcs: my_tasks.Sums", blocks("yaml")[0])
    project.yaml.write_text(re.sub(r"^base_model: .*\n", small, yaml))
    assert {item.state for item in project.run("trl.max_completion_length=4").values()} == {"computed"}
    file = project.folder / "my_tasks.py"
    file.write_text(module.replace("2.0", "3.0"))
    stale = {
        name for name, item in project.plan("trl.max_completion_length=4").items() if item.state != "cached"
    }
    assert stale == {"trained"}


@pytest.mark.slow
def test_its_environment_behind_a_server_trains(tmp_path, monkeypatch):
    packages = packages_with_openenv()
    monkeypatch.syspath_prepend(packages)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), packages]))
    project = make_project(tmp_path / "project")
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    (yaml,) = (one for one in blocks("yaml") if "environment_factory: http" in one)
    rows = [{"prompt": [{"role": "user", "content": "Add up."}], "start": n} for n in range(8)]
    (project.folder / "data" / "openings.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    model = project.folder / "model" / "config.json"
    model.write_text(json.dumps({**json.loads(model.read_text()), "max_position_embeddings": 4096}))
    with server_of(COUNTING, tmp_path / "server", packages) as url:
        yaml = yaml.replace("http://localhost:8000", url)
        project.yaml.write_text(re.sub(r"^base_model: .*\n", small, yaml))
        assert {item.state for item in project.run("trl.max_completion_length=4").values()} == {"computed"}
    # All of it is there: the server is not asked again, and another reward is another training.
    assert {item.state for item in project.run("trl.max_completion_length=4").values()} == {"cached"}
    other = project.plan("trl.max_completion_length=4", "pipeline.environment_reward=last")
    assert {name for name, item in other.items() if item.state != "cached"} == {"trained"}
    assert len((tmp_path / "server" / "resets").read_text().splitlines()) == 32


@pytest.mark.slow
def test_its_yaml_trains_and_its_commands_run(tmp_path, capsys, monkeypatch):
    project = make_project(tmp_path / "project")
    monkeypatch.chdir(project.folder)
    small = "".join(f"{key}: {json.dumps(value)}\n" for key, value in SMALL.items())
    project.yaml.write_text(re.sub(r"^base_model: .*\n", small, blocks("yaml")[0]))
    rows = [{"prompt": [{"role": "user", "content": f"{n} + 1"}], "answer": str(n + 1)} for n in range(8)]
    (project.folder / "data" / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rewards = project.folder / "rewards.py"
    rewards.write_text(blocks("python")[0])
    assert {item.state for item in project.run("trl.max_completion_length=4").values()} == {"computed"}
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("tunemill ")]
    assert len(commands) == 5

    def said(line):
        capsys.readouterr()
        words = shlex.split(line.partition("#")[0])[1:]
        assert main([*words, "--state", str(project.state)]) == 0, line
        return capsys.readouterr().out

    assert all(said(line) for line in commands[:4])
    before = said(commands[-1])
    assert before.startswith("32 completions of 4 prompts scored again, 0 tokens generated")
    table = [line.split() for line in before.splitlines()[2:5]]
    assert [row[-1] for row in table] == ["0", "0", "0"], "the same rewards say the same"
    rewards.write_text(rewards.read_text().replace("/ 100", "/ 10"))
    after = said(commands[-1])
    changed = {line.split()[0]: int(line.split()[-1]) for line in after.splitlines()[2:5]}
    assert changed["correct"] == 0 and changed["brief"] > 0
    stale = {
        name for name, item in project.plan("trl.max_completion_length=4").items() if item.state != "cached"
    }
    assert stale == {"trained"}, "the training of these rewards is another one, and nothing was trained"
