"""Exports for vLLM where llmcompressor is: in an environment of its own, through the command line too."""

import json
import re
from pathlib import Path

import pytest
from support.own_environment import python_with_llmcompressor, run_in
from support.project import make_project

HERE = Path(__file__).resolve().parent
NODES = {"fp8-dynamic": "fp8_dynamic", "w8a8": "w8a8", "w4a16": "w4a16", "nvfp4": "nvfp4"}


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of that environment."""
    return python_with_llmcompressor()


@pytest.mark.slow
def test_the_tests_of_the_export_pass_there(python: Path) -> None:
    tests = str(HERE.parents[2])
    done = run_in(
        python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "test_export.py"), path=tests
    )
    assert done.returncode == 0, done.stdout[-4000:]
    passed = re.search(r"^(\d+) passed, 1 skipped", done.stdout, re.M)
    assert passed and int(passed[1]) >= 28, done.stdout[-2000:]


@pytest.mark.slow
def test_a_pipeline_exports_each_scheme_and_scores_it(python: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    config = project.folder / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "bfloat16"}))
    exports = ", ".join(
        f"{{format: compressed-tensors, scheme: {scheme}{', group_size: 32' if scheme == 'w4a16' else ''}}}"
        for scheme in NODES
    )
    command = [
        "-m", "tunemill.pipelines.cli", "run", "pipeline.yml", f"pipeline.export=[{exports}]", "quantization=null",
        "pipeline.evaluate=[merged, exported]", "output_dir=out", "--json",
    ]  # fmt: skip
    done = run_in(python, *command, cwd=project.folder)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    for node in NODES.values():
        name = f"exported_compressed_{node}"
        folder = project.folder / "out" / name
        stored = json.loads((folder / "config.json").read_text())
        assert stored["quantization_config"]["quant_method"] == "compressed-tensors"
        metrics = json.loads((project.folder / "out" / f"evaluation_of_{name}" / "metrics.json").read_text())
        before = json.loads((project.folder / "out" / "evaluation_of_merged" / "metrics.json").read_text())
        assert metrics["eval_loss"] == pytest.approx(before["eval_loss"], rel=0.1)
        assert metrics["eval_loss"] != before["eval_loss"]
    again = run_in(python, *command, cwd=project.folder)
    assert again.returncode == 0 and "computed" not in again.stdout
