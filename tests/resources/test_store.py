"""The store: whole or absent, never half; damage is noticed and named."""

import json
import os
import stat

import pytest

from tunemill.resources.canonical import hash_document
from tunemill.resources.store import KEY_PARTS, Absent, Published, Store, open_store


def document(number):
    return {part: {} for part in KEY_PARTS} | {"stage": "stage", "version": number}


KEY = hash_document(document(0))
FACTS = {"pipeline": "p", "node": "n", "inputs": {}, "metrics": {}, "seconds": 1.0}


def silent(message):
    raise AssertionError(f"nobody holds this lease, yet: {message}")


def publish(store, number=0, files=(("a.txt", "a"), ("sub/b.txt", "bb")), lineage=None):
    with store.building("stage", hash_document(document(number)), silent) as building:
        for name, text in files:
            (building.data / name).parent.mkdir(parents=True, exist_ok=True)
            (building.data / name).write_text(text)
        (building.checkpoints / "step-1").write_text("half way")
        (building.logs / "output.log").write_text("hello")
        ready = store.prepare(building, document(number), FACTS, lambda digest: lineage or {"digest": digest})
        return store.publish(building, ready)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


def test_what_was_published_is_found_whole(store):
    published = publish(store)
    found = store.lookup("stage", KEY)
    assert isinstance(found, Published)
    assert found.digest == published.digest
    assert (found.data / "sub" / "b.txt").read_text() == "bb"
    assert json.loads((found.data / "tunemill_lineage.json").read_text()) == {"digest": published.digest}
    assert store.verify(found.folder) == []
    assert not (store.root / "building" / "stage" / KEY).exists()


def test_the_digest_is_of_the_data_alone(store):
    one = publish(store, 1, lineage={"host": "one", "time": 1})
    other = publish(store, 2, lineage={"host": "other", "time": 2})
    changed = publish(store, 3, files=(("a.txt", "A"), ("sub/b.txt", "bb")))
    renamed = publish(store, 4, files=(("A.txt", "a"), ("sub/b.txt", "bb")))
    assert one.digest == other.digest
    assert len({one.digest, changed.digest, renamed.digest}) == 3


def test_published_files_are_read_only(store):
    published = publish(store)
    for path in (published.data / "a.txt", published.folder / "manifest.json"):
        assert not path.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)


@pytest.mark.parametrize(
    "name", ["data/a.txt", "data/sub/b.txt", "logs/output.log", "data/tunemill_lineage.json"]
)
def test_a_missing_or_short_file_is_a_miss_that_names_it(store, name):
    published = publish(store)
    os.truncate(published.folder / name, 0)
    found = store.lookup("stage", KEY)
    assert isinstance(found, Absent) and found.damage == (name,) and name in found.reason
    (published.folder / name).unlink()
    found = store.lookup("stage", KEY)
    assert isinstance(found, Absent) and found.damage == (name,)


def test_a_flipped_byte_is_found_by_verify_only(store):
    published = publish(store)
    path = published.data / "a.txt"
    path.chmod(0o644)
    path.write_text("b")
    assert isinstance(store.lookup("stage", KEY), Published)
    assert store.verify(published.folder) == [f"{path}: its contents changed"]


def test_what_is_set_aside_is_never_hit_and_never_overwritten(store):
    first = publish(store)
    aside = store.set_aside("stage", KEY)
    assert isinstance(store.lookup("stage", KEY), Absent)
    assert (aside / "data" / "a.txt").exists() and not first.folder.exists()
    publish(store)
    assert store.set_aside("stage", KEY) != aside


def test_an_attempt_that_died_leaves_checkpoints_but_no_data_and_no_artifact(store):
    with pytest.raises(RuntimeError, match="died"), store.building("stage", KEY, silent) as building:
        (building.data / "half.txt").write_text("half")
        (building.checkpoints / "step-7").write_text("7")
        raise RuntimeError("died")
    assert isinstance(store.lookup("stage", KEY), Absent)
    with store.building("stage", KEY, silent) as building:
        assert list(building.data.iterdir()) == []
        assert (building.checkpoints / "step-7").read_text() == "7"


def test_a_state_folder_that_cannot_be_made_is_an_error_with_the_fix(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"the state folder cannot be made .*give another with --state"):
        open_store(tmp_path / "file" / "state")
