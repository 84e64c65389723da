"""lm-evaluation-harness where lm_eval is: its tests, and a pipeline through the command line."""

import json
import re
import sys
from pathlib import Path

import pytest
from support.harness_tasks import write_tasks
from support.own_environment import packages_with_lm_eval, run_in
from support.project import make_project

HERE = Path(__file__).resolve().parent
TESTS = str(HERE.parents[2])


@pytest.fixture(scope="session")
def packages() -> str:
    """The folder of those packages."""
    return packages_with_lm_eval()


@pytest.mark.slow
def test_the_tests_of_the_scores_pass_there(packages: str) -> None:
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_scores.py")]
    done = run_in(sys.executable, *command, path=f"{TESTS}:{packages}")
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"^(\d+) passed", done.stdout, re.M)
    assert passed and int(passed[1]) >= 9, done.stdout[-2000:]


@pytest.mark.slow
def test_a_pipeline_is_scored_and_gated(packages: str, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    write_tasks(project.folder / "tasks")
    project.edit(
        lm_eval_tasks=["tasks/"], quantization=None, generate_samples=True, eval_steps=2, generation_max_new_tokens=4,
        pipeline={
            "evaluate": ["base", "merged"],
            "gates": [{"metric": "cities/acc", "of": "merged", "evaluation": "lm_eval", "min": 2}],
            "evaluations": [
                {"name": "sums", "on": ["merged"], "task": "tasks/sums.yaml", "lm_eval": {"limit": 2}}
            ],
        },
    )  # fmt: skip
    command = ["-m", "tunemill.pipelines.cli", "run", "pipeline.yml", "--json"]
    done = run_in(sys.executable, *command, cwd=project.folder, path=packages)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "cities/acc" in said, "no share is 2"
    trained = (project.folder / "outputs" / "trained").resolve().parent / "manifest.json"
    titles = [table["title"] for table in json.loads(trained.read_text())["tables"]]
    assert titles.count("What the model writes") == 1, "that of the last evaluation"
    for what in ("base", "merged"):
        folder = project.folder / "outputs" / f"evaluation_lm_eval_of_{what}"
        metrics = json.loads((folder / "metrics.json").read_text())
        assert set(metrics) == {
            "cities/acc", "cities/acc_norm", "likely/acc", "likely/perplexity", "sums/exact_match"
        }  # fmt: skip
        assert len((folder / "predictions.jsonl").read_text().splitlines()) == 12
    rows = (project.folder / "outputs" / "evaluation_sums_of_merged" / "predictions.jsonl").read_text()
    own = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    expected = [{**row, "row": row["doc_id"]} for row in own if row["task"] == "sums"][:2]
    assert [json.loads(line) for line in rows.splitlines()] == expected
    checked = run_in(
        sys.executable, "-m", "tunemill.pipelines.cli", "check", "pipeline.yml", "lm_eval_tasks=[arc_eazy]",
        cwd=project.folder, path=packages,
    )  # fmt: skip
    assert checked.returncode and "has no task of this name" in checked.stdout + checked.stderr
