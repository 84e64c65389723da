"""A page of docs/ that says how to add something, followed literally in a copy of the project."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"`(\w+/[\w./-]+\.\w+)`")
LEFT_OUT = (".venv", ".git", ".tunemill", ".hypothesis", "__pycache__", "*_cache", "*.egg-info", "*.png")
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
# The tests that any new key, stage, method or template may break.
MAY_BREAK = {
    "tests/docs/test_readme.py::test_the_page_of_keys_is_current",
    "tests/pipelines/graph/test_fingerprint.py::test_every_fingerprint_is_recorded",
    "tests/pipelines/graph/test_keys.py",
    "tests/test_house.py",
}
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
class Block:
    """A block of code on a page; `file` is the file that the text before it named last."""

    language: str
    text: str
    file: str | None


def blocks_of(page):
    """The blocks of a page, in order."""
    text = (ROOT / "docs" / page).read_text()
    for found in BLOCK.finditer(text):
        named = FILE.findall(BLOCK.sub("", text[: found.start()]))
        yield Block(found[1], found[2], named[-1] if named else None)


def patched(text, diff):
    """A text after a diff: hunks between lines of `@@`, each of which fits one place."""
    for hunk in re.split(r"^@@\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert f"\n{text}".count(f"\n{old}") == 1, f"this must be there once:\n{old}"
        text = f"\n{text}".replace(f"\n{old}", f"\n{new}")[1:]
    return text


@dataclass(frozen=True)
class Copy:
    """A copy of the project in which a page was followed, step by step."""

    root: Path
    page: str
    blocks: list[Block]

    def follow(self):
        """Write the page's files, apply its changes, run its commands, in the order of the page."""
        for block in self.blocks:
            if block.language == "sh":
                self.call("bash", "-euc", block.text)
                continue
            file = self.root / block.file
            if block.language == "diff":
                file.write_text(patched(file.read_text(), block.text))
            else:
                assert not file.exists(), f"{block.file} is there already"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(block.text)

    def changed(self, ending=".py"):
        """The files that the page writes or changes."""
        files = dict.fromkeys(block.file for block in self.blocks if block.language != "sh")
        return [file for file in files if file.endswith(ending)]

    def lines(self, *languages):
        """How many lines of code the page has."""
        return sum(len(block.text.splitlines()) for block in self.blocks if block.language in languages)

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

    def check_page(self):
        """The page is short, runs what any new thing may break, and its files are as `make lint` wants them."""
        assert len((self.root / "docs" / self.page).read_text().splitlines()) < 80
        run = {word for block in self.blocks if block.language == "sh" for word in block.text.split()}
        assert run >= MAY_BREAK
        self.call(sys.executable, "-m", "ruff", "check", *self.changed())
        self.call(sys.executable, "-m", "ruff", "format", "--check", *self.changed())


@pytest.fixture(scope="module")
def copy(request, tmp_path_factory):
    """A copy of the project in which the module's PAGE was followed."""
    root = tmp_path_factory.mktemp("page") / "copy"
    shutil.copytree(ROOT, root, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))
    page: str = request.module.PAGE
    made = Copy(root, page, list(blocks_of(page)))
    imported = made.call(sys.executable, "-c", "import tunemill; print(tunemill.__file__)").strip()
    assert imported == str(root / "tunemill" / "__init__.py")
    made.follow()
    return made
