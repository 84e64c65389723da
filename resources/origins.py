"""Which YAML a pipeline was last run from: `pipelines/<name>.json`. It is what `status` compares with.

A YAML below the folder that the state folder lies in is named as seen from there: both may be moved together.
Of a point of a sweep whose grid the command line named, that file is noted too.
"""

import json
import uuid
from pathlib import Path

from tunemill.resources.folders import read_json


def write_origin(root: Path, pipeline: str, file: Path, grid: Path | None = None) -> None:
    """Note the YAML of a pipeline, and of its sweep, absolute paths, in the state folder `root`."""
    if read_origin(root, pipeline) == file and read_grid(root, pipeline) == (grid and str(grid)):
        return
    named = file.relative_to(root.parent) if file.is_relative_to(root.parent) else file
    path = _path(root, pipeline)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{uuid.uuid4().hex}")
    told = {"file": str(named)} | ({} if grid is None else {"sweep": str(grid)})
    beside.write_text(json.dumps(told))
    beside.replace(path)


def read_origin(root: Path, pipeline: str) -> Path | None:
    """The YAML that a pipeline was last run from; None where that is not known."""
    document = read_json(_path(root, pipeline))
    file = document.get("file") if isinstance(document, dict) else None
    return root.parent / file if isinstance(file, str) else None


def read_grid(root: Path, pipeline: str) -> str | None:
    """The YAML of the sweep that a pipeline was last run in, where the pipeline's own does not name it."""
    document = read_json(_path(root, pipeline))
    grid = document.get("sweep") if isinstance(document, dict) else None
    return grid if isinstance(grid, str) else None


def _path(root: Path, pipeline: str) -> Path:
    return root / "pipelines" / f"{pipeline}.json"
