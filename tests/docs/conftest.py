"""A page of docs/ that says how to add something, followed literally in a copy of the project."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.pages import ROOT, blocks_of, edited

LEFT_OUT = (".venv", ".git", ".tunemill", ".hypothesis", "__pycache__", "*_cache", "*.egg-info", "*.png")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
# Runs commands of the command line, with stages in this process: in children, each would import torch anew.
RUN = """
import json, sys
from functools import partial
from tunemill.pipelines import cli
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.commands import watched
from tunemill.resources.launcher import in_this_process

watched.run_pipeline = partial(run_pipeline, launch=in_this_process)
sys.exit(max(cli.main(arguments) for arguments in json.loads(sys.argv[1])))
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the project in which a page was followed, step by step."""

    root: Path

    def follow(self, blocks):
        """Write the page's files and apply its changes, then run its commands: pages end with these."""
        for name, text in edited(blocks, self.root).items():
            file = self.root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for block in blocks:
            if block.language == "sh":
                self.call("bash", "-euc", block.text)

    def call(self, *command, cwd=None, code=0):
        """Run a command that imports the copy; what it wrote to stdout."""
        done = subprocess.run(
            command,
            cwd=cwd or self.root,
            env={**ENVIRONMENT, "PYTHONPATH": f"{self.root}{os.pathsep}{self.root / 'tests'}"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def refused(self, project):
        """What `check` says of a YAML that is wrong."""
        command = [sys.executable, "-m", "tunemill.pipelines.cli", "check", str(project.yaml), "--json"]
        return self.call(*command, code=1)

    def tunemill(self, project, *commands):
        """The JSON documents that commands of the copy print for a project, such as `run --learning_rate=1e-3`."""
        asked = []
        for name, *options in map(str.split, commands):
            state = [] if name == "check" else ["--state", str(project.state)]
            asked.append([name, project.yaml.name, *options, *state, "--json"])
        text = self.call(sys.executable, "-c", RUN, json.dumps(asked), cwd=project.folder)
        found = []
        while text := text.strip():
            document, end = json.JSONDecoder().raw_decode(text)
            text = text[end:]
            by_node = isinstance(document, dict) and {node["node"]: node for node in document["nodes"]}
            found.append({**document, "nodes": by_node} if by_node else document)
        assert len(found) == len(commands)
        return found


@pytest.fixture(scope="module")
def copy(request, tmp_path_factory):
    """A copy of the project in which the module's PAGE was followed."""
    root = tmp_path_factory.mktemp("page") / "copy"
    shutil.copytree(ROOT, root, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    made = Copy(root)
    imported = made.call(sys.executable, "-c", "import tunemill; print(tunemill.__file__)").strip()
    assert imported == str(root / "tunemill" / "__init__.py")
    made.follow(blocks_of(request.module.PAGE))
    return made
