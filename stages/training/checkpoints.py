"""Which checkpoint of a killed run can be trusted: only one whose seal was written last."""

import json
import os
import shutil
from pathlib import Path

SEAL = "complete.json"


def seal(folder: Path) -> None:
    """Flush every file of a checkpoint to disk, then write the seal that names them with their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)
    for path in files:
        _flush(path)
    unsealed = folder / f"{SEAL}.part"
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    unsealed.write_text(json.dumps(sizes), encoding="utf-8")
    _flush(unsealed)
    unsealed.replace(folder / SEAL)
    _flush(folder)


def is_complete(folder: Path) -> bool:
    """Whether the checkpoint has a seal and every file that the seal names, at its size."""
    if not (folder / SEAL).is_file():
        return False
    try:
        sizes = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(sizes, dict) and all(
        (folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items()
    )


def checkpoint_folders(root: Path) -> list[Path]:
    """Checkpoints of a run, complete or not, oldest first."""
    numbered = [folder for folder in root.glob("checkpoint-*") if folder.name.rpartition("-")[2].isdecimal()]
    return sorted(numbered, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint was written after."""
    return int(checkpoint.name.rpartition("-")[2])


def newest_complete(root: Path) -> Path | None:
    """The newest checkpoint to resume from; nothing is changed."""
    return next((folder for folder in reversed(checkpoint_folders(root)) if is_complete(folder)), None)


def last_complete(root: Path) -> Path | None:
    """The newest checkpoint to resume from; torn ones are removed on the way."""
    for folder in checkpoint_folders(root):
        if not is_complete(folder):
            shutil.rmtree(folder)
    return newest_complete(root)


def keep_last(root: Path, limit: int) -> None:
    """Remove all but the `limit` newest checkpoints."""
    for folder in checkpoint_folders(root)[:-limit]:
        shutil.rmtree(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
