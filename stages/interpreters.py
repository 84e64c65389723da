"""Other Pythons than this one: which packages lie beside them, found without importing any."""

import json
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

SECONDS = 10


def version_beside(python: str | None, package: str) -> str | None:
    """A package's version beside an interpreter, None: this one. None where there is none, or no such interpreter.

    What a version says behind a plus, such as the device that it is built for, is left out.
    """
    folders = list(sys.path) if python is None else path_of(python)
    found = next(iter(distributions(name=package, path=list(folders or ()))), None)
    return None if found is None else found.version.partition("+")[0]


def why_without(python: str, package: str) -> str:
    """What an interpreter lacks, beside which a package was not found."""
    what = "runs no Python" if path_of(python) is None else f"has no {package} beside it"
    return f"{python} {what}. Name the Python of an environment in which {package} is installed"


@cache
def path_of(python: str) -> tuple[str, ...] | None:
    """Where an interpreter looks for modules; None of what is none."""
    command = ["env", "-u", "PYTHONPATH", "-u", "PYTHONHOME", python, "-c"]
    try:
        said = subprocess.run(
            [*command, "import json, sys; print(json.dumps(sys.path))"],
            capture_output=True,
            text=True,
            check=True,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        ).stdout
        return tuple(map(str, json.loads(said)))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def whole_path(value: str | None) -> str | None:
    """A validator of keys that name an interpreter. Raises ValueError."""
    if value is None:
        return None
    path = Path(value).expanduser()
    if not path.is_absolute():
        raise ValueError("must be a whole path, such as /opt/environment/bin/python")
    if not path.name.startswith("py"):
        raise ValueError(f"must be a Python. Name that beside it: {path.with_name('python')}")
    return str(path)
