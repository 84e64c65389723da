"""Names are not contents: identity of files and folders, and the stat cache in front of it."""

import hashlib
import mmap
import os
import sqlite3
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunemill.resources import identity
from tunemill.resources.errors import StoreError
from tunemill.resources.identity import StatCache, identify

SETTLED_NANOSECONDS = 200_000_000


@pytest.fixture
def quickly_settled(monkeypatch):
    """A file system of nanoseconds does with less than is waited for, and these tests are sooner done."""
    monkeypatch.setattr(identity, "SETTLED_NANOSECONDS", SETTLED_NANOSECONDS)


@pytest.fixture
def cache(tmp_path):
    return StatCache(tmp_path / "state" / "stat_cache.sqlite")


def settle():
    time.sleep(1.1 * SETTLED_NANOSECONDS / 1e9)


def test_a_file_is_its_contents_not_its_name_or_time(tmp_path, cache):
    one, other = tmp_path / "one.txt", tmp_path / "other.txt"
    one.write_text("same")
    other.write_text("same")
    os.utime(other, (1, 1))
    assert identify(one, cache) == identify(other, cache)
    assert identify(one, cache)["sha256"] == hashlib.sha256(b"same").hexdigest()


@pytest.mark.usefixtures("quickly_settled")
def test_an_edit_with_the_same_size_and_mtime_is_seen(tmp_path, cache):
    path = tmp_path / "rows.jsonl"
    path.write_text("aaaa")
    settle()
    before = identify(path, cache)
    state = path.stat()
    path.write_text("bbbb")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_mtime_ns == state.st_mtime_ns
    assert identify(path, cache) != before


@pytest.mark.usefixtures("quickly_settled")
def test_an_unchanged_file_is_not_read_again(tmp_path, cache):
    path = tmp_path / "rows.jsonl"
    path.write_text("aaaa")
    settle()
    cache.hash(path)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE files SET sha256 = 'remembered'")
    assert StatCache(cache.path).hash(path) == "remembered"


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path, cache):
    path = tmp_path / "rows.jsonl"
    for text in ("aaaa", "bbbb", "cccc", "dddd"):
        path.write_text(text)
        assert cache.hash(path) == hashlib.sha256(text.encode()).hexdigest()


def test_a_folder_is_the_listing_of_its_contents(tmp_path, cache):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_text("a")
    before = identify(folder, cache)
    moved = folder.rename(tmp_path / "elsewhere")
    assert identify(moved, cache) == before
    (moved / "sub" / "a").rename(moved / "sub" / "b")
    assert identify(moved, cache) != before


def test_hidden_files_are_not_part_of_a_folder(tmp_path):
    (tmp_path / "a").write_text("a")
    before = identify(tmp_path, StatCache(tmp_path.parent / f"{tmp_path.name}.sqlite"))
    (tmp_path / ".DS_Store").write_text("noise")
    assert identify(tmp_path, StatCache(tmp_path.parent / f"{tmp_path.name}.sqlite")) == before


def test_nothing_there_is_an_error(tmp_path, cache):
    with pytest.raises(StoreError, match=r"nowhere: there is no such file or folder"):
        identify(tmp_path / "nowhere", cache)


@pytest.mark.usefixtures("quickly_settled")
def test_writes_through_one_memory_map_are_seen_although_a_look_lay_between(tmp_path, cache):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"a" * 5000)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 5000) as mapped:
        for letter in b"bcd":
            mapped[0] = letter
            for wait in (0, 1.1 * SETTLED_NANOSECONDS / 1e9):
                time.sleep(wait)
                assert cache.hash(path) == hashlib.sha256(mapped[:]).hexdigest(), letter


@pytest.mark.usefixtures("quickly_settled")
def test_files_in_memory_are_read_each_time(cache):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        path = Path(file.name)
        path.write_bytes(b"a" * 5000)
        with mmap.mmap(os.open(path, os.O_RDWR), 5000) as mapped:
            for letter in b"bc":
                mapped[0] = letter
                settle()
                assert cache.hash(path) == hashlib.sha256(mapped[:]).hexdigest()
                mapped[0] = b"x"[0]
                assert cache.hash(path) == hashlib.sha256(mapped[:]).hexdigest()


def test_edits_on_a_file_system_that_counts_in_seconds_are_seen(tmp_path, cache, monkeypatch):
    """Its times are those of this file system, cut down to seconds."""
    path = tmp_path / "rows.jsonl"

    def in_seconds(state):
        values = {name: getattr(state, name) for name in dir(state) if name.startswith("st_")}
        cut = {name: values[name] // 10**9 * 10**9 for name in ("st_mtime_ns", "st_ctime_ns")}
        return SimpleNamespace(**{**values, **cut})

    found, fstat = Path.stat, os.fstat
    monkeypatch.setattr(Path, "stat", lambda self: in_seconds(found(self)))
    monkeypatch.setattr(os, "fstat", lambda descriptor: in_seconds(fstat(descriptor)))
    path.write_text("0000")
    for number in range(1, 25):
        with path.open("r+") as file:
            file.write(f"{number:04}")
        assert cache.hash(path) == hashlib.sha256(f"{number:04}".encode()).hexdigest()
        time.sleep(0.15)
