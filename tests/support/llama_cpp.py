"""llama.cpp itself, as npm's node-llama-cpp brings it: its binding, and its tool that quantizes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tunemill.stages.models.exported_gguf.llama_cpp_body import find_engine

PACKAGE = "node-llama-cpp@3.22.1"


def node_modules(folder: Path) -> Path:
    """The folder of packages that has node-llama-cpp: one that is here, else installed below `folder` (30 s)."""
    if (found := find_engine()) is not None:
        return found.parent
    if shutil.which("npm") is None:
        pytest.skip("no npm here: apt-get install nodejs npm")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text("{}")
    subprocess.run(
        ["npm", "install", "--ignore-scripts", PACKAGE], cwd=folder, check=True, capture_output=True
    )
    return folder / "node_modules"


def build_llama_quantize(packages: Path, folder: Path) -> Path:
    """The folder of a `llama-quantize`, linked against the package's libraries (10 s)."""
    if shutil.which("git") is None or shutil.which("g++") is None:
        pytest.skip("no git and g++ here")
    source, built = folder / "source", folder / "built"
    bundle = packages / "node-llama-cpp" / "llama" / "gitRelease.bundle"
    subprocess.run(["git", "clone", "--quiet", bundle, source], check=True, capture_output=True)
    built.mkdir()
    libraries = packages / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64"
    stems = ("libllama.v", "libllama-common", "libggml.v", "libggml-base")
    names = [next(libraries.glob(f"{stem}*.so")).name for stem in stems]
    includes = ["include", "ggml/include", "common", "src", "vendor"]
    subprocess.run(
        [
            "g++", "-O1", "-std=c++17", *(f"-I{source / name}" for name in includes),
            *sorted((source / "tools" / "quantize").glob("*.cpp")), "-o", built / "llama-quantize", f"-L{libraries}",
            *(f"-l:{name}" for name in names), f"-Wl,-rpath,{libraries}", "-Wl,--allow-shlib-undefined",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    return built
