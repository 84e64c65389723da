"""What a command costs when nothing, or little, has changed. Prints one Markdown table from one run.

`python benchmarks/second_run.py [--steps N]` runs the quickstart (with N training steps) in a temporary folder
and then the same command again after small changes. Wall and CPU seconds include every child process.
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
from dataclasses import dataclass
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "quickstart"


@dataclass(frozen=True)
class Measured:
    """One command: what it was, how many stages it executed, wall and CPU seconds."""

    what: str
    executed: int
    wall: float
    cpu: float


def measure(what: str, arguments: list[str], folder: Path) -> Measured:
    """Run one `tunemill` command in the folder and clock it with its children."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tunemill.pipelines.cli", *arguments, "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = json.loads(done.stdout)
    nodes = answer["nodes"] if isinstance(answer, dict) else []
    executed = sum(node["state"] == "computed" for node in nodes)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(what, executed, wall, cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20, help="training steps of the quickstart")
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(EXAMPLE, folder / "quickstart")
        run = ["run", "quickstart/pipeline.yml", f"--max_steps={steps}"]
        rows = [
            measure("first run", run, folder),
            measure("again, nothing changed", run, folder),
            measure("`logging_steps` changed", [*run, "--logging_steps=7"], folder),
            measure("`eval_max_new_tokens` changed", [*run, "--eval_max_new_tokens=20"], folder),
            measure("`learning_rate` changed", [*run, "--learning_rate=0.001"], folder),
            measure("`learning_rate` changed back", run, folder),
            measure("`plan`", ["plan", *run[1:]], folder),
            measure("`check`", ["check", *run[1:]], folder),
        ]
    print(f"{steps} training steps, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| command | stages executed | wall s | CPU s |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row.what} | {row.executed} | {row.wall:.2f} | {row.cpu:.2f} |")


if __name__ == "__main__":
    main()
