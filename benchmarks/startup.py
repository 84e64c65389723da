"""What a start costs: seconds to each stage's first rows, and of the whole `preprocess`. Prints one Markdown table.

`python benchmarks/startup.py [--against CHECKOUT]... [--rounds 3] [--rows 20000] [--out FILE.md]` prepares the data of
the quickstart and of many chat rows (those of benchmarks/tokenizing.py), each from an empty store, in turn from every
checkout. "First rows" is from the start of a node's process to the first word of its body on its progress, or to its
end where it has none. The figures are the least of N rounds; CPU seconds are user and system, children included.
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
from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import tokenizing

from tunemill.resources.folders import remove_tree

HERE = Path(__file__).resolve().parent.parent
CHAT = """\
base_model: tokenizer
datasets:
  - path: rows.jsonl
    type: chat_template
sequence_len: 4096
sample_packing: true
micro_batch_size: 1
num_epochs: 1
learning_rate: 0.0002
"""
# Runs a pipeline's data from the checkout on its path, and prints when each node started and had its first rows.
WATCHED = """\
import json, sys, time
from pathlib import Path
from tunemill.pipelines.assets.run import run_pipeline
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.store import Store
seen = {}
def observe(node, event):
    times = seen.setdefault(node, {})
    if event["type"] in ("start", "progress", "done"):
        times.setdefault(event["type"], time.perf_counter())
pipeline = load_pipeline(Path("pipeline.yml")).data()
finished = run_pipeline(pipeline, Store(Path(".tunemill")), observe)
assert all(item.state == "computed" for item in finished), [item.message for item in finished]
print(json.dumps({
    item.node: (item.stage, seen[item.node].get("progress", seen[item.node]["done"]) - seen[item.node]["start"])
    for item in finished
}))
"""
Figures = dict[str, float]


def environment(checkout: Path, folder: Path) -> dict[str, str]:
    """Modules come from the checkout, compiled once, as they are for users."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "TUNEMILL_HOME", "DAGSTER_HOME")
    }
    return {**kept, "PYTHONPATH": str(checkout), "PYTHONPYCACHEPREFIX": str(folder.parent / "compiled")}


def first_rows(checkout: Path, folder: Path) -> Figures:
    """Of each stage the seconds to its first rows; of several nodes of a stage, the least."""
    printed = run([sys.executable, "-c", WATCHED], checkout, folder)
    figures: Figures = {}
    for stage, seconds in json.loads(printed.splitlines()[-1]).values():
        figures[stage] = min(seconds, figures.get(stage, seconds))
    return figures


def whole(checkout: Path, folder: Path) -> Figures:
    """Wall and CPU seconds of the command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    run(
        [sys.executable, "-m", "tunemill.pipelines.cli", "preprocess", "pipeline.yml", "--json"],
        checkout,
        folder,
    )
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"whole `preprocess`, wall": wall, "whole `preprocess`, CPU": cpu}


def run(command: list[str], checkout: Path, folder: Path) -> str:
    """What a command prints that starts from an empty store."""
    remove_tree(folder / ".tunemill")
    done = subprocess.run(
        command, cwd=folder, env=environment(checkout, folder), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (checkout, done.stderr)
    return done.stdout


def make_projects(root: Path, rows: int) -> dict[str, Path]:
    """Folders with a pipeline.yml, by what they are called in the table."""
    shutil.copytree(
        HERE / "examples" / "quickstart",
        root / "quickstart",
        ignore=shutil.ignore_patterns(".tunemill", "out"),
    )
    chat = root / "chat"
    chat.mkdir()
    text = tokenizing.library_text()
    tokenizing.write_tokenizer(chat / "tokenizer", text)
    tokenizing.write_rows(chat / "rows.jsonl", rows, text)
    (chat / "pipeline.yml").write_text(CHAT)
    return {"quickstart": root / "quickstart", f"{rows:,} chat rows": chat}


def table(least: Mapping[tuple[str, str], Mapping[Path, float]], checkouts: list[Path], rounds: int) -> str:
    """One line for each figure, one column for each checkout."""
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    lines = [
        f"{date.today()}, {machine}, Python {platform.python_version()}, least of {rounds}",
        "",
        "| pipeline | seconds |" + "".join(f" {checkout.name} |" for checkout in checkouts),
        "|---|---|" + "---|" * len(checkouts),
    ]
    for (name, what), figures in least.items():
        lines.append(f"| {name} | {what} |" + "".join(f" {figures[c]:.2f} |" for c in checkouts))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", type=Path, action="append", default=[], help="another checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--out", type=Path, default=None, help="write the table to this file too")
    options = parser.parse_args()
    checkouts = [*(path.resolve() for path in options.against), HERE]
    least: dict[tuple[str, str], dict[Path, float]] = defaultdict(dict)
    with tempfile.TemporaryDirectory() as name:
        for project, folder in make_projects(Path(name), options.rows).items():
            # Checkouts take turns, so that a machine that grows slower does so for all of them.
            for _ in range(options.rounds):
                for checkout in checkouts:
                    firsts = {f"first rows of `{s}`": n for s, n in first_rows(checkout, folder).items()}
                    for what, seconds in {**firsts, **whole(checkout, folder)}.items():
                        known = least[project, what]
                        known[checkout] = min(seconds, known.get(checkout, seconds))
        printed = table(least, checkouts, options.rounds)
        for folder in Path(name).iterdir():
            remove_tree(folder)
    print(printed)
    if options.out is not None:
        options.out.write_text(printed, encoding="utf-8")


if __name__ == "__main__":
    main()
