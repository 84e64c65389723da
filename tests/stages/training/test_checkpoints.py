"""Only sealed checkpoints are trusted."""

from pathlib import Path

import pytest

from tunemill.stages.training.checkpoints import (
    SEAL,
    is_complete,
    keep_last,
    last_complete,
    newest_complete,
    seal,
)


def checkpoint(root: Path, step: int) -> Path:
    folder = root / f"checkpoint-{step}"
    (folder / "deep").mkdir(parents=True)
    (folder / "weights").write_bytes(b"123")
    (folder / "deep" / "state").write_bytes(b"45")
    return folder


def test_a_sealed_checkpoint_is_complete(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, 1)
    assert not is_complete(folder)
    seal(folder)
    assert is_complete(folder)
    assert {path.name for path in folder.iterdir()} == {"weights", "deep", SEAL}


@pytest.mark.parametrize("damage", ["cut", "gone", "no seal", "another seal"])
def test_a_damaged_checkpoint_is_not_complete(tmp_path: Path, damage: str) -> None:
    folder = checkpoint(tmp_path, 1)
    seal(folder)
    if damage == "cut":
        (folder / "deep" / "state").write_bytes(b"4")
    elif damage == "gone":
        (folder / "deep" / "state").unlink()
    else:
        (folder / SEAL).write_text("{" if damage == "no seal" else "[]")
    assert not is_complete(folder)


def test_the_newest_complete_one_counts_and_torn_ones_go(tmp_path: Path) -> None:
    assert last_complete(tmp_path) is None
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    for step in (9, 10):
        seal(tmp_path / f"checkpoint-{step}")
    assert last_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-100").exists()
    # Not one of ours, so it is neither read nor removed.
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete(tmp_path) == newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    assert (tmp_path / "checkpoint-best").exists()


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint(tmp_path, step)
    keep_last(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-10", "checkpoint-100"}
