"""Packages that cannot live beside those that tests run with: llmcompressor, which wants an older transformers, in an
environment of its own; lm_eval, whose scikit-learn every process with transformers would import, in a folder.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# An environment that is there already.
GIVEN = "TUNEMILL_LLMCOMPRESSOR_PYTHON"
GIVEN_LM_EVAL = "TUNEMILL_LM_EVAL_PACKAGES"
TESTING = ["pytest>=9", "pytest-xdist>=3", "hypothesis"]


def python_with_llmcompressor() -> Path:
    """The interpreter. The first call installs, below the folder of temporary files; skips where pip cannot."""
    if os.environ.get(GIVEN):
        return Path(os.environ[GIVEN])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        f"torch=={version('torch').partition('+')[0]}",
        *(name for name in project["dependencies"] if not name.startswith("torch>")),
        *project["optional-dependencies"]["llmcompressor"],
        *TESTING,
    ]
    digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tunemill-llmcompressor-{digest}"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"pip cannot install llmcompressor: {done.stderr.strip().splitlines()[-1:]}")
        finished.touch()
    return python


def packages_with_lm_eval() -> str:
    """A folder for PYTHONPATH with lm_eval and what it needs beside what is here. Skips where pip cannot install."""
    if os.environ.get(GIVEN_LM_EVAL):
        return os.environ[GIVEN_LM_EVAL]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"]["lm-eval"]
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    asked = subprocess.run(
        [*pip, "--dry-run", "--report", "-", *wanted], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        pytest.skip(f"pip cannot install lm_eval: {asked.stderr.strip().splitlines()[-1:]}")
    found = [item["metadata"] for item in json.loads(asked.stdout)["install"]]
    names = sorted(f"{one['name']}=={one['version']}" for one in found)
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"tunemill-lm-eval-{digest}"
    if not (folder / "finished").is_file():
        subprocess.run([*pip, "--no-deps", "--upgrade", "--target", folder, *names], check=True)
        (folder / "finished").touch()
    return str(folder)


def run_in(
    python: str | Path, *arguments: str, cwd: Path = ROOT, path: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run this project's code with another interpreter; `path`: more folders of modules."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), path])),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return subprocess.run(
        [python, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
