"""The examples as they are shipped: a person's checkout also holds what running them has left behind."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def shipped(folder: str) -> list[Path]:
    """The files below a folder of the project that git keeps; in a checkout without git all of them."""
    listing = subprocess.run(["git", "ls-files", "-z", folder], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0 or not listing.stdout:
        return sorted(path for path in (ROOT / folder).rglob("*") if path.is_file())
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def copy_examples(target: Path) -> Path:
    """Copy `examples/` to `target/examples`, and return that."""
    for file in shipped("examples"):
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    return target / "examples"
