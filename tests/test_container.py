"""The Dockerfile: it copies what is there, pins what is pinned elsewhere, and runs `tunemill` as nobody of power.

No image is built here: that takes a container engine and gigabytes.
"""

import json
import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
KNOWN = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "ENTRYPOINT", "CMD"}


def instructions():
    """Each as (word, rest), lines that go on joined."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines() if line.strip()]


def of(word):
    return [rest for name, rest in instructions() if name == word]


def test_every_line_is_an_instruction():
    assert {word for word, _ in instructions()} <= KNOWN


def test_what_is_copied_is_there_and_reaches_the_builder():
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = {
        name for rest in of("COPY") if not rest.startswith("--from") for name in rest.split()[:-1]
    }  # fmt: skip
    assert copied == set(let_in)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert any(fnmatchcase(name, pattern) for pattern in let_in), name
    # All that the package leads to through links is among it.
    links = {link.readlink().name for link in (ROOT / "tunemill").iterdir() if link.is_symlink()}
    assert links | {"tunemill", "constraints.txt", "pyproject.toml"} <= copied
    assert {PROJECT["readme"], *PROJECT["license-files"]} <= copied


def test_versions_are_those_that_are_pinned():
    images = [rest.split()[0] for rest in of("FROM") if not rest.startswith("on-")]
    assert len(set(images)) == 1
    version = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", images[0])[1]
    assert PROJECT["requires-python"] == f">={version}"
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    installed = re.findall(r"\b([\w-]+)==(\S+)", " ".join(of("RUN")))
    assert installed and all(f"{name}=={pin}" in constraints for name, pin in installed)
    pips = [rest for rest in of("RUN") if "pip install" in rest]
    assert len(pips) == 2 and all("--constraint constraints.txt" in rest for rest in pips)
    assert all("--no-cache-dir" in rest for rest in pips)
    extras = re.search(r"'\.\[([\w,-]+)\]'", pips[1])[1].split(",")
    assert set(extras) <= PROJECT["optional-dependencies"].keys()


def test_each_device_has_its_stage_and_what_is_not_one_is_refused():
    stages = [rest.rpartition(" AS ")[2] for rest in of("FROM") if " AS " in rest]
    devices = re.findall(r"(\w+)\) index=(\S+) ;;", TEXT)
    assert {f"on-{name}" for name, _ in devices} == {name for name in stages if name.startswith("on-")}
    assert of("FROM")[-1] == "on-${DEVICE}" and of("ARG")[0] == "DEVICE=cpu"
    assert all(index.startswith("https://") for _, index in devices) and "exit 1" in TEXT


def test_it_is_small_and_runs_tunemill_without_power():
    for rest in of("RUN"):
        if "apt-get install" in rest:
            assert "--no-install-recommends" in rest and "rm -rf /var/lib/apt/lists/*" in rest
    last = [word for word, _ in instructions()]
    after_user = last[last.index("USER") + 1 :]
    assert "RUN" not in after_user and "COPY" not in after_user
    (user,) = of("USER")
    assert user not in ("root", "0") and f"useradd --no-create-home --uid 10001 {user}" in TEXT
    (entry,) = of("ENTRYPOINT")
    assert json.loads(entry) == ["tunemill"] and "tunemill" in PROJECT["scripts"]
    assert "ADD " not in TEXT and "TOKEN" not in TEXT


def test_the_readme_says_how():
    assert "docker build" in (ROOT / "README.md").read_text()
