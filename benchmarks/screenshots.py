"""Make the pictures of docs/pictures (`make screenshots`): run the quickstart, edit a key, look at Dagster's pages.

Needs Chromium and takes some minutes: the quickstart trains, unless a state folder is named in which it has.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import browser, picture  # noqa: E402
from support.project import Project  # noqa: E402
from support.ui import LOCATION, Ui, serve  # noqa: E402

from tunemill.pipelines.cli import main  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
NAME = "quickstart"
# Fewer colours than a screen has make a picture a third as large.
COLOURS = 200
LARGEST = 150_000
HELD_OUT_ROWS = (100, 240)
SECONDS = 600
# Below `pipeline:`, which is the last key of the YAML.
OPERATED = '  schedule: {cron: "0 3 * * *", timezone: Europe/Berlin}\n  watch: true\n'


def make_pictures(folder: Path, computed: Path | None) -> None:
    """Run the quickstart, evaluate it on more rows, so that there is something to compare, and take the pictures."""
    shutil.copytree(ROOT / "examples" / NAME, folder, dirs_exist_ok=True)
    (folder / "refine.yml").unlink()
    yaml, state = folder / "pipeline.yml", folder / ".tunemill"
    if computed is not None:
        shutil.copytree(computed, state, symlinks=True)
    held_out = folder / "data" / "heldout.jsonl"
    lines = held_out.read_text().splitlines(keepends=True)
    for rows in HELD_OUT_ROWS:
        held_out.write_text("".join(lines[:rows]))
        if main(["run", str(yaml), "--state", str(state)]) != 0:
            sys.exit("the run failed")
    report = next(iter(sorted((state / "runs" / NAME).glob("*.html"), reverse=True)))
    project = Project(folder, state)
    with serve(project) as ui, browser() as opened:
        ui.ask("mutation{setNuxSeen}")
        page = opened.page
        page.goto(report.as_uri())
        save(page, "report")
        show(page, ui, f"/locations/{LOCATION}/asset-groups/{NAME}/lineage", 12)
        save(page, "group")
        show(page, ui, f"/assets/{NAME}/summary", 4)
        page.get_by_text("Show more").first.click()
        page.set_viewport_size({"width": 1440, "height": 1700})
        time.sleep(2)
        save(page, "summary")
        page.set_viewport_size({"width": 1440, "height": 900})
        yaml.write_text(yaml.read_text().replace("learning_rate: 0.0012", "learning_rate: 0.001"))
        ui.reload()
        show(page, ui, f"/assets/{NAME}/trained", 4)
        save(page, "trained")
        yaml.write_text(yaml.read_text().replace("learning_rate: 0.001", "learning_rate: 0.0012"))
        evaluate_alone(page, ui, yaml)
        page.set_viewport_size({"width": 1440, "height": 480})
        show(page, ui, "/runs", 4)
        save(page, "runs")
        yaml.write_text(yaml.read_text() + OPERATED)
        ui.reload()
        show(page, ui, "/automation", 4)
        save(page, "automation")


def evaluate_alone(page: Any, ui: Ui, yaml: Path) -> None:
    """Edit the evaluation, press the button of its job as a user does, and show what ran: nothing but evaluations."""
    yaml.write_text(f"{yaml.read_text()}  evaluation: {{max_rows: {HELD_OUT_ROWS[0]}}}\n")
    ui.reload()
    before = set(run_ids(ui))
    show(page, ui, f"/locations/{LOCATION}/jobs/{NAME}_evaluate", 6)
    save(page, "evaluate_job")
    page.get_by_role("button", name="Materialize all").click()
    while not (begun := set(run_ids(ui)) - before):
        time.sleep(1)
    (run,) = begun
    status = ui.wait(run, SECONDS)
    if status != "SUCCESS" or ui.steps(run) & {"trained", "merged", "quantized", "base_model"}:
        sys.exit(f"the job did not evaluate alone: {status}, {ui.steps(run)}")
    show(page, ui, f"/runs/{run}", 6)
    save(page, "evaluate_run")


def run_ids(ui: Ui) -> list[str]:
    """The ids of all runs."""
    found = ui.ask("{runsOrError{... on Runs{results{runId}}}}")["runsOrError"]["results"]
    return [run["runId"] for run in found]


def show(page: Any, ui: Ui, path: str, seconds: float) -> None:
    """Open a page of Dagster and wait until it has drawn."""
    page.goto(ui.url + path)
    time.sleep(seconds)


def save(page: Any, name: str) -> None:
    """Write a picture, small enough for a repository."""
    file = picture(page, PICTURES / f"{name}.png")
    with Image.open(file) as whole:
        small = whole.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE)
    small.save(file, optimize=True)
    size = file.stat().st_size
    if size > LARGEST:
        sys.exit(f"{file}: {size} bytes, more than {LARGEST}")
    print(f"{file}: {size} bytes")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tunemill-pictures-") as scratch:
        make_pictures(Path(scratch) / NAME, Path(sys.argv[1]) if len(sys.argv) > 1 else None)
