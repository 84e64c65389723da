"""A folder of pipelines as a component of a fresh `dg` project, found by the entry point of pyproject.toml."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from support.examples import ROOT, copy_examples

import tunemill

DG = Path(sys.executable).with_name("dg")
PROJECT = """\
[project]
name = "shop"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["dagster"]

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""
DEFINITIONS = """\
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


def test_the_package_imports_no_dagster_until_the_component_is_asked_for():
    code = "import sys, tunemill; assert 'dagster' not in sys.modules; assert 'PipelinesComponent' in dir(tunemill)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60
    )
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = tunemill.other


@pytest.mark.slow
@pytest.mark.skipif(not DG.is_file(), reason="dagster-dg-cli is not installed")
def test_dg_scaffolds_checks_and_lists_it(tmp_path):
    project, site = tmp_path / "project", tmp_path / "site" / "registry-1.0.dist-info"
    (project / "src" / "shop" / "defs").mkdir(parents=True)
    site.mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    (project / "src" / "shop" / "__init__.py").touch()
    (project / "src" / "shop" / "defs" / "__init__.py").touch()
    (project / "src" / "shop" / "definitions.py").write_text(DEFINITIONS)
    # What an installation of the package registers.
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: registry\nVersion: 1.0\n")
    (site / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n{name} = {value}\n" for group, one in points.items() for name, value in one.items()
        )
    )
    path = os.pathsep.join(map(str, (ROOT, project / "src", site.parent)))

    def dg(*arguments, code=0):
        done = subprocess.run(
            [DG, *arguments], cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
            timeout=110,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    dg("scaffold", "defs", "tunemill.PipelinesComponent", "llm", "--folder", "yamls")
    written = project / "src" / "shop" / "defs" / "llm" / "defs.yaml"
    assert yaml.safe_load(written.read_text()) == {
        "type": "tunemill.PipelinesComponent",
        "attributes": {"folder": "yamls", "state": ".tunemill"},
    }
    shutil.copytree(copy_examples(tmp_path) / "quickstart", project / "yamls", dirs_exist_ok=True)
    (project / "yamls" / "refine.yml").unlink(missing_ok=True)
    assert "validated successfully" in dg("check", "yaml")
    listed = dg("list", "defs", "--json")
    for asset in ("quickstart/trained", "quickstart/merged", "quickstart/evaluation_of_merged"):
        assert f'"{asset}"' in listed
    written.write_text(written.read_text().replace("folder:", "folders:"))
    assert "folders" in dg("check", "yaml", code=1)
