"""Machines that train together and share no disk: each tidies up its own folder of checkpoints, by one process."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from stages.training.sharded_cases import ShardedConfig, train_sharded
from support.own_environment import ROOT
from support.tiny_model import workspace

from tunemill.resources.calls import Call, Nodes, name_of
from tunemill.stages.errors import UserError
from tunemill.stages.report import Report, Workspace
from tunemill.stages.training.checkpoints import checkpoint_folders

pytestmark = pytest.mark.slow
TRAININGS = ["fsdp:sft", "waits:sft"]
NAMES = [one.replace(":", "-") for one in TRAININGS]
TRAINS = """
import json, sys
from tunemill.resources.calls import Call, Nodes
from tunemill.resources.launcher import in_child
given = json.load(open(sys.argv[1]))
in_child(Call(**{**given, "nodes": Nodes(**given["nodes"])}), lambda _: None)
"""
# What a process of two, each on a machine of its own, knows of a folder.
SHARED = """
import sys
from datetime import timedelta
from pathlib import Path
from torch import distributed
from tunemill.stages.training import ranks_body as ranks
distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
print(ranks.shared_folder(Path(sys.argv[1])), ranks.tidies(Path(sys.argv[1])), ranks.is_first_here())
"""


@pytest.fixture(autouse=True)
def tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in paths if path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def with_own_disk(folder: Path) -> list[str]:
    """What goes before a command for which the folder is on a disk of its own. Skips where none can be."""
    before = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(folder)]
    if not shutil.which("unshare") or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("only root mounts a disk for one process alone, by `unshare`")
    return before


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def call_on(folder: Path, own: Path, machine: int, port: int) -> dict[str, Any]:
    """What one of two machines is asked to do, by two processes."""
    places = workspace(folder / f"call_{machine}")
    given = {"trainings": TRAININGS, "processes": 4, "folder": str(folder), "checkpoints": str(own)}
    call = Call(
        body=name_of(train_sharded),
        config_class=name_of(ShardedConfig),
        config={**given, "changes": {"save_steps": 2, "save_total_limit": 1}},
        inputs={},
        workspace_class=name_of(Workspace),
        workspace={name: str(getattr(places, name)) for name in ("data", "checkpoints", "logs")},
        report_class=name_of(Report),
        user_error=name_of(UserError),
        processes=4,
        nodes=Nodes(2, machine, f"127.0.0.1:{port}", "key"),
    )
    return asdict(call)


def test_one_process_of_each_machine_removes_its_old_checkpoints(tmp_path: Path) -> None:
    own, before, port = tmp_path / "own", tmp_path / "before", free_port()
    own.mkdir()
    for name in NAMES:
        for step in range(100, 130):
            for part in range(20):
                (before / name / "checkpoints" / f"checkpoint-{step}" / f"parts_{part}").mkdir(parents=True)
    started = []
    for machine in range(2):
        asked, after = tmp_path / f"call_{machine}.json", tmp_path / f"after_{machine}"
        asked.write_text(json.dumps(call_on(tmp_path, own, machine, port)))
        has_old = f"cp -r {before}/. {own} && " if machine == 1 else ""
        steps = f'{has_old}{sys.executable} -c "$1" {asked} && cp -r {own} {after}'
        started.append(subprocess.Popen([*with_own_disk(own), "sh", "-c", steps, "sh", TRAINS]))
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    for name in NAMES:
        first, second = (
            checkpoint_folders(tmp_path / f"after_{machine}" / name / "checkpoints") for machine in range(2)
        )
        assert [one.name for one in first] == [one.name for one in second] == ["checkpoint-8"]
        # Of each of two processes, of the weights and of the optimizer's state.
        assert len(list(second[0].rglob("*.distcp"))) == len(list(first[0].rglob("*.distcp"))) == 4


@pytest.mark.parametrize("apart", [False, True])
def test_a_folder_of_the_same_name_on_another_disk_is_not_shared(tmp_path: Path, apart: bool) -> None:
    disk = with_own_disk(tmp_path) if apart else []
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [*disk, sys.executable, "-c", SHARED, str(tmp_path)],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": "0"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[0].split() for process in started]
    assert said == [
        [str(None if apart else tmp_path), "True", "True"],
        [str(None if apart else tmp_path), str(apart), "True"],
    ]
    assert not list(tmp_path.iterdir())
