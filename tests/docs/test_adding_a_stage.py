"""Follow docs/adding-a-stage.md literally, in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "adding-a-stage.md").read_text()


@pytest.fixture
def copy(tmp_path):
    ignored = shutil.ignore_patterns(
        ".venv", ".git", ".tunemill", "__pycache__", "examples", "*_cache", "*.egg-info"
    )
    return Path(shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=ignored))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def follow(copy):
    files = re.findall(r"`(stages/frequencies/\w+\.py)`:\n\n```python\n(.*?)^```", PAGE, re.M | re.S)
    assert len(files) == len(blocks("python")) == 3
    for name, text in files:
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(text)
    added, after = (block.splitlines() for block in blocks("diff"))
    graph = (copy / "pipelines" / "graph.py").read_text()
    for new, line in zip(added, after, strict=True):
        assert graph.count(f"{line[1:]}\n") == 1, line
        graph = graph.replace(f"{line[1:]}\n", f"{line[1:]}\n{new[1:]}\n")
    (copy / "pipelines" / "graph.py").write_text(graph)


def python(copy, *arguments, cwd=None):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd or copy,
        env={**os.environ, "PYTHONPATH": f"{copy}:{copy / 'tests'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_takes_under_60_lines():
    lines = sum(len(block.splitlines()) for block in (*blocks("python"), *blocks("sh"), blocks("diff")[0]))
    assert lines < 60


def test_the_new_stage_runs_and_its_key_works(copy, project):
    follow(copy)
    (command,) = blocks("sh")
    assert command.startswith("python ")
    python(copy, *command.split()[1:])
    assert "frequencies" in json.loads((copy / "stages" / "versions.json").read_text())

    def tunemill(*arguments):
        state = ("--state", str(project.state))
        return json.loads(
            python(copy, "-m", "tunemill.pipelines.cli", *arguments, *state, "--json", cwd=project.folder)
        )

    nodes = {node["node"]: node for node in tunemill("run", "pipeline.yml", "--frequencies_top=3")["nodes"]}
    assert {name for name, node in nodes.items() if node["state"] == "computed"} == {"frequencies"}
    found = json.loads((Path(nodes["frequencies"]["path"]) / "frequencies.json").read_text())
    assert len(found) == 3 and nodes["frequencies"]["metrics"]["distinct_tokens"] > 3
    plan = {node["node"]: node for node in tunemill("plan", "pipeline.yml", "--frequencies_top=4")["nodes"]}
    assert plan["frequencies"]["reasons"] == ["frequencies_top 3 -> 4"]


def test_the_copy_with_the_new_stage_still_passes_lint_and_its_own_tests(copy):
    follow(copy)
    python(copy, "-m", "tunemill.pipelines.graph.fingerprint", "record", "frequencies")
    python(copy, "-m", "ruff", "check", "stages/frequencies", "pipelines/graph.py")
    python(copy, "-m", "pytest", "-q", "-x", "tests/pipelines/test_keys.py", "tests/stages/test_versions.py")
