"""What commands cost that compute nothing, of this checkout and of others. Prints one Markdown table from one run.

`python benchmarks/commands.py [--against CHECKOUT]... [--rounds N] [--artifacts N]` runs the quickstart once (with
one training step), lays copies of it into a folder of 60 pipelines and copies of its artifacts into a large store,
and then calls each command in turn from every checkout. The figures are the least of N rounds: CPU seconds (user and
system) and wall seconds of a process with its children.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import remove_tree
from tunemill.resources.refs import Ref
from tunemill.resources.store import Store

HERE = Path(__file__).resolve().parent.parent
PIPELINES = 60


@dataclass(frozen=True)
class Cost:
    """What a process took, in seconds."""

    cpu: float
    wall: float


def tunemill(checkout: Path, arguments: list[str], folder: Path) -> Cost:
    """Run a command from a checkout, and clock it. Modules are compiled once, as they are for users."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "TUNEMILL_HOME", "DAGSTER_HOME")
    }
    environment |= {"PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(folder.parent / "compiled")}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tunemill.pipelines.cli", *arguments],
        cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, (checkout, arguments, done.stderr)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def make_project(folder: Path) -> None:
    """The quickstart and what it computes."""
    shutil.copytree(HERE / "examples" / "quickstart", folder, ignore=shutil.ignore_patterns(".tunemill"))
    tunemill(HERE, ["run", "pipeline.yml", "--max_steps=1"], folder)


def make_folder(project: Path, folder: Path) -> None:
    """A project with copies of its YAML, each a pipeline of its own that has run."""
    shutil.copytree(project, folder, symlinks=True)
    text, refs = (folder / "pipeline.yml").read_text(), folder / ".tunemill" / "refs"
    for number in range(PIPELINES):
        assert "name: quickstart\n" in text
        (folder / f"p{number}.yml").write_text(text.replace("name: quickstart\n", f"name: p{number}\n"))
        shutil.copytree(refs / "quickstart", refs / f"p{number}")


def make_large(project: Path, folder: Path, artifacts: int) -> None:
    """A store with so many artifacts, each with a node that points to it: a project's under other keys, by links."""
    from_store, store = Store(project / ".tunemill"), Store(folder / ".tunemill")
    originals = from_store.artifacts()
    for number in range(artifacts):
        original, copies = originals[number % len(originals)], number // len(originals)
        stage = original.parent.name
        document = json.loads((original / "key.json").read_text()) | {"version": f"copy {copies}"}
        key = hash_document(document)
        made = store.folder(stage, key)
        shutil.copytree(original, made, copy_function=os.link)
        made.chmod(0o755)
        for name in ("manifest.json", "key.json"):
            (made / name).unlink()
        (made / "key.json").write_text(json.dumps(document, indent=1))
        manifest = json.loads((original / "manifest.json").read_text()) | {"key": key}
        node, digest = manifest["node"], manifest["digest"]
        del manifest["sha256"]
        sealed = {**manifest, "sha256": hash_document(manifest)}
        (made / "manifest.json").write_text(json.dumps(sealed, indent=1))
        made.chmod(0o555)
        store.refs.write(f"copy_{copies}", node, Ref(stage, key, digest))


def commands(artifacts: int) -> Iterator[tuple[str, list[str], str]]:
    """What is measured: a name, the command's arguments, the folder it runs in."""
    run = ["pipeline.yml", "--max_steps=1"]
    yield "`--help`", ["--help"], "project"
    yield "`plan --help`", ["plan", "--help"], "project"
    yield "`check`", ["check", *run], "project"
    yield "`plan`, all cached", ["plan", *run], "project"
    yield "`run`, all cached", ["run", *run], "project"
    yield f"`plan` in a folder of {PIPELINES} pipelines", ["plan", "p7.yml", "--max_steps=1"], "folder"
    yield f"`status`, {artifacts} artifacts", ["status"], "large"
    yield f"`status --json`, {artifacts} artifacts", ["status", "--json"], "large"
    yield f"`cache ls`, {artifacts} artifacts", ["cache", "ls"], "large"
    yield f"`cache ls --json`, {artifacts} artifacts", ["cache", "ls", "--json"], "large"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, action="append", default=[], help="another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--artifacts", type=int, default=3000)
    options = parser.parse_args()
    checkouts = [*(path.resolve() for path in options.against), HERE]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_project(root / "project")
        make_folder(root / "project", root / "folder")
        make_large(root / "project", root / "large", options.artifacts)
        rows = {}
        for what, arguments, place in commands(options.artifacts):
            costs: dict[Path, list[Cost]] = {checkout: [] for checkout in checkouts}
            # One round more than counts: it compiles modules, and warms what can be warmed.
            for _ in range(options.rounds + 1):
                for checkout in checkouts:
                    costs[checkout].append(tunemill(checkout, arguments, root / place))
            rows[what] = [costs[checkout][1:] for checkout in checkouts]
        remove_tree(root / "large")
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, least of {options.rounds}\n")
    names = [checkout.name for checkout in checkouts]
    print("| command |" + "".join(f" {name}: CPU s | wall s |" for name in names))
    print("|---|" + "---|---|" * len(names))
    for what, measured in rows.items():
        least = [(min(c.cpu for c in costs), min(c.wall for c in costs)) for costs in measured]
        print(f"| {what} |" + "".join(f" {cpu:.2f} | {wall:.2f} |" for cpu, wall in least))


if __name__ == "__main__":
    main()
