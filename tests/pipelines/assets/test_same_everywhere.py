"""One YAML has the same keys, and its data the same bytes, by the command line, Dagster and a Ray cluster."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from support.project import Project, make_project
from support.ray_cluster import ray_cluster

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.resources.launcher import in_child

RUN = [sys.executable, "-m", "tunemill.pipelines.cli", "run"]
# What they are made from is made with them; then the key of the training is known.
MADE = ("training_data", "evaluation_data", "base_model")


def run(project: Project, environment: dict[str, str], *more: str) -> None:
    """The command line, from a folder that is not the project's."""
    command = [*RUN, str(project.yaml), "--state", str(project.state), *more]
    only = [word for name in MADE for word in ("--only", name)]
    done = subprocess.run(
        [*command, *only],
        cwd=project.folder.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def figures(project: Project) -> tuple[dict[str, str], dict[str, str]]:
    """The keys of all nodes that can have one by now, and the digests of those that are there."""
    plan = project.plan()
    there = {name: item.cached.digest for name, item in plan.items() if item.cached is not None}
    assert set(MADE) < set(there) and plan["trained"].key is not None
    return {name: item.key for name, item in plan.items() if item.key is not None}, there


@pytest.fixture(scope="module")
def by_command(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    project = make_project(tmp_path_factory.mktemp("command") / "p")
    run(project, dict(os.environ))
    return figures(project)


@pytest.mark.slow
def test_dagster_makes_what_the_command_line_makes(by_command: tuple[Any, Any], tmp_path: Path) -> None:
    project = make_project(tmp_path / "elsewhere" / "p")
    # As `dagster dev` loads them.
    definitions = build_definitions(project.folder, project.state, in_child)
    selection = dg.AssetSelection.assets(*(["pipeline", name] for name in MADE)).upstream()
    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([*definitions.assets], instance=instance, selection=selection).success
    assert figures(project) == by_command


@pytest.mark.exhaustive
def test_so_does_a_ray_cluster(by_command: tuple[Any, Any], tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", tmp_path / "state")
    with ray_cluster() as cluster:
        run(project, cluster.environment, "--on", f"ray://{cluster.jobs}")
    assert figures(project) == by_command
