"""Two machines train together: the first publishes what one would have made, the second only helps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.machines import Machine, two_machines
from support.own_environment import ROOT
from support.project import Project, make_project

PORT = 29517


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("machines")
    return make_project(
        folder / "p", folder / "state", sample_packing=False, max_steps=3, micro_batch_size=2, save_steps=2
    )


def start(
    project: Project, state: Path, machine: Machine, rank: int, first: Machine, *more: str
) -> subprocess.Popen[str]:
    """`tunemill train` on one of two machines, as a user gives it."""
    launched = ["--launcher", "torchrun", "--", "--nproc-per-node", "1", "--nnodes", "2"]
    launched += ["--node-rank", str(rank), "--rdzv-endpoint", f"{first.address}:{PORT}"]
    return command_on(machine, "train", str(project.yaml), "--state", str(state), *more, *launched)


def command_on(machine: Machine, verb: str, *words: str) -> subprocess.Popen[str]:
    """A command of ours on one of two machines."""
    command = [*machine.prefix, sys.executable, "-m", "tunemill.pipelines.cli", verb, "--json", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": machine.interface}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def outcome(started: list[subprocess.Popen[str]]) -> list[tuple[dict[str, Any], str]]:
    found = [process.communicate(timeout=500) for process in started]
    return [(json.loads(output), errors) for output, errors in found]


def trained(told: dict[str, Any]) -> dict[str, Any]:
    return next(node for node in told["nodes"] if node["node"] == "trained")


@pytest.mark.slow
def test_two_machines_make_what_one_makes(project, tmp_path):
    alone = project.run("gradient_accumulation_steps=2", only=["trained"])["trained"]
    weights = load_file(alone.published.data / "adapter_model.safetensors")
    states = [tmp_path / "first", tmp_path / "second"]
    with two_machines() as machines:
        started = [start(project, states[rank], machines[rank], rank, machines[0]) for rank in (1, 0)]
        (joined, said), (first, _) = outcome(started)
    assert [process.returncode for process in started] == [0, 0], said
    found = trained(first)
    assert found["state"] == "computed" and found["key"] == alone.key
    assert found["metrics"]["processes"] == 2
    for name, tensor in load_file(Path(found["path"]) / "adapter_model.safetensors").items():
        assert (tensor - weights[name]).abs().max() < 1e-5, name
    assert joined["joined"] == {"trained": "took part as machine 1; the first one has the result"}
    assert {node["node"] for node in joined["nodes"] if node["state"] == "computed"} >= {"training_data"}
    assert not (states[1] / "artifacts" / "sft").exists() and not list(states[1].glob("joined_*"))


@pytest.mark.slow
def test_what_is_asked_for_again_is_computed_by_both(project, tmp_path):
    """The second machine has the result of before, as where both see one disk, and helps all the same."""
    state = tmp_path / "state"
    project.run("gradient_accumulation_steps=2", only=["trained"])
    shutil.copytree(project.state, state)
    places = (project.state, state)
    again = ("--only", "trained", "--refresh", "trained,training_data")
    with two_machines() as machines:
        launcher = f"processes: 1, nodes: 2, rendezvous: '{machines[0].address}:{PORT}'"
        started = [
            command_on(
                machines[rank], "run", str(project.yaml), "--state", str(places[rank]), *again,
                f"pipeline.launcher={{{launcher}, node_rank: {rank}}}",
            )
            for rank in (1, 0)
        ]  # fmt: skip
        (joined, said), (first, _) = outcome(started)
    assert [process.returncode for process in started] == [0, 0], said
    assert trained(first)["state"] == "computed" and trained(first)["metrics"]["processes"] == 2
    assert joined["joined"] == {"trained": "took part as machine 1; the first one has the result"}
    assert [node["node"] for node in joined["nodes"] if node["state"] == "computed"] == ["training_data"]


@pytest.mark.exhaustive
def test_machines_that_compute_different_things_say_so(project, tmp_path):
    with two_machines() as machines:
        started = [
            start(project, tmp_path / str(rank), machines[rank], rank, machines[0], f"seed={rank + 1}")
            for rank in (1, 0)
        ]
        told = outcome(started)
    assert [process.returncode for process in started] == [1, 1]
    assert all("the machines compute different things" in json.dumps(one) + said for one, said in told)
