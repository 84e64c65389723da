"""Files that come with Tunemill: its documentation and examples, in a checkout as in what is installed of a wheel."""

from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

from tunemill.stages.errors import SourceError

# Made by running the examples where they are.
MADE = {"outputs", ".tunemill", "__pycache__"}
README = "readme"


def folder_of(name: str) -> Path:
    """The folder `docs` or `examples` of the package. Raises SourceError where it was left out."""
    folder = Path(str(resources.files("tunemill"))) / name
    if not folder.is_dir():
        raise SourceError(f"{folder}: not there: Tunemill was installed without its {name}. Install it anew")
    return folder


def files_of(name: str) -> Iterator[Path]:
    """The files of such a folder, seen from it, in order; not what running the examples has left there."""
    folder = folder_of(name)
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not MADE & {*inside.parts}:
            yield inside


def pages() -> dict[str, str]:
    """Name -> text of every page, the README first."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(folder_of("docs").glob("*.md"))}
    return {README: _readme(), **found}


def _readme() -> str:
    """That of the checkout; or what a wheel has of it in its metadata."""
    beside = Path(str(resources.files("tunemill"))).parent / "README.md"
    if beside.is_file():
        return beside.read_text(encoding="utf-8")
    return str(metadata.metadata("tunemill")["Description"] or "")
