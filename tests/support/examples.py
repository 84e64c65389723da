"""The examples as they are shipped: a person's checkout also holds what running them has left behind."""

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def shipped(folder: str) -> list[Path]:
    """The files below a folder of the project that git keeps; in a checkout without git all of them."""
    listing = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0 or not listing.stdout:
        return sorted(path for path in (ROOT / folder).rglob("*") if path.is_file())
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def copy_examples(target: Path) -> Path:
    """Copy `examples/` to `target/examples`, and return that."""
    for file in shipped("examples"):
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return target / "examples"


def alarms(told: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The checks that failed in a run, from what it said as JSON: node, check, and why."""
    return [(one["node"], one["check"], one["text"]) for one in told["checks"] if one["state"] == "failed"]


def quickstart_once(shared: Path) -> Path:
    """A folder with `examples`, `state`, in which the quickstart has run to its end, and `nodes.json`, what it said.

    Whichever test process of a session comes first makes it below the folder that they share. Tests take a copy.
    """
    folder = shared / "quickstart"
    with (shared / "quickstart.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "nodes.json").is_file():
            yaml = copy_examples(folder) / "quickstart" / "pipeline.yml"
            command = [sys.executable, "-m", "tunemill.pipelines.cli", "run", str(yaml), "--json"]
            done = subprocess.run(
                [*command, "--state", str(folder / "state")], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            (folder / "nodes.json").write_text(done.stdout)
    return folder
