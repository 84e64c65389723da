"""What the UI costs over a folder of many pipelines: a load of its definitions after an edit, one `plan`.

`python benchmarks/ui.py [--pipelines 200] [--rounds 5] [--out FILE.md]` writes copies of the quickstart with one
dataset, a pipeline each. A load is a fresh process, as Dagster starts one: imports, definitions, and the snapshot that
it sends to the web server. The figures are the least of N rounds; CPU seconds are user and system. Modules are compiled
before, as those of an installed package are, whatever `PYTHONDONTWRITEBYTECODE` says here.
"""

import argparse
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
LOAD = """\
import sys
from pathlib import Path
import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
from tunemill.pipelines.assets.folder import build_definitions
import gc
definitions = build_definitions(Path("."))
gc.freeze()
repository = definitions.get_repository_def()
dg.serialize_value(RepositorySnap.from_def(repository, defer_snapshots=True))
print(len(repository.asset_graph.get_all_asset_keys()))
"""
# Nothing but Dagster: as many assets of the same shape, each with the next as upstream.
ALONE = """\
import dagster as dg
from dagster._core.remote_representation.external_data import RepositorySnap
def asset(number):
    above = [dg.AssetKey([f"p{number // 10}", f"n{number % 10 - 1}"])] if number % 10 else []
    @dg.asset(key=dg.AssetKey([f"p{number // 10}", f"n{number % 10}"]), deps=above, code_version="1")
    def one() -> None: ...
    return one
definitions = dg.Definitions([asset(number) for number in range(COUNT)])
dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def(), defer_snapshots=True))
"""


def make_folder(folder: Path, pipelines: int) -> None:
    """So many pipelines that differ in their learning rates, over the same files; at least eight."""
    example = HERE / "examples" / "quickstart"
    for name in ("data", "model"):
        shutil.copytree(example / name, folder / name)
    text = (example / "pipeline.yml").read_text()
    for cut in (
        "  - path: data/dates_numeric.jsonl\n    type: chat_template\n",
        "quantization:\n  weight_dtype: int8\n",
    ):
        assert cut in text
        text = text.replace(cut, "")
    held_out = "test_datasets:\n  - path: data/heldout.jsonl\n    type: chat_template\n"
    text = text.replace(held_out, "val_set_size: 0.1\n")
    for number in range(pipelines):
        own = text.replace("name: quickstart", f"name: p{number}")
        (folder / f"p{number}.yml").write_text(
            own.replace("learning_rate: 0.0012", f"learning_rate: {1e-4 + number * 1e-6:.6f}")
        )


def clocked(command: list[str], folder: Path, compiled: Path) -> tuple[float, float, str]:
    """CPU and wall seconds of a process, and what it prints. `compiled`: where modules lie compiled."""
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *command],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall, done.stdout.strip()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, default=200)
    parser.add_argument("--share", type=int, default=25, help="pipelines of one code location out of several")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None, help="write the table to this file too")
    options = parser.parse_args()
    least: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder, share, compiled = (Path(name) / part for part in ("all", "share", "compiled"))
        make_folder(folder, options.pipelines)
        make_folder(share, options.share)
        _, _, assets = clocked(["-c", LOAD], folder, compiled)
        for number in range(options.rounds):
            for edited in (folder / "p7.yml", share / "p7.yml"):
                text = edited.read_text().replace("num_epochs: 2", "num_epochs: 3")
                edited.write_text(f"{text}# {number}\n")
            alone = ALONE.replace("COUNT", assets)
            plan = ["-m", "tunemill.pipelines.cli", "plan", "p7.yml"]
            commands = {
                "definitions after one edit": (folder, ["-c", LOAD]),
                f"as many of Dagster's own assets ({assets}), alone": (folder, ["-c", alone]),
                f"definitions of {options.share} pipelines in a code location of their own": (
                    share,
                    ["-c", LOAD],
                ),
                "`plan` of one pipeline": (folder, plan),
            }
            for what, (where, command) in commands.items():
                cpu, wall, _ = clocked(command, where, compiled)
                known = least.get(what, (cpu, wall))
                least[what] = (min(known[0], cpu), min(known[1], wall))
    machine = f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}"
    size = f"{options.pipelines} pipelines, {assets} assets, least of {options.rounds}"
    lines = [
        f"{date.today()}, {machine}, Python {platform.python_version()}, {size}",
        "",
        "| what | CPU s | wall s |",
        "|---|---|---|",
        *(f"| {what} | {cpu:.2f} | {wall:.2f} |" for what, (cpu, wall) in least.items()),
    ]  # fmt: skip
    printed = "\n".join(lines) + "\n"
    print(printed)
    if options.out is not None:
        options.out.write_text(printed, encoding="utf-8")


if __name__ == "__main__":
    main()
