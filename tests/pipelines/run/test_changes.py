"""A look at what a pipeline reads: changed contents that stand still are a change, and nothing else is."""

import os
import shutil
import time

import pytest
from support.project import chat_row, make_project

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.run.changes import look_at, notice, read_contents, seen_in
from tunemill.resources.errors import StoreError

SETTLE = 30


@pytest.fixture
def watched(tmp_path):
    return make_project(tmp_path / "project")


class Watcher:
    """What Dagster does: it keeps the text of the last look, and asks again later."""

    def __init__(self, project):
        self.project, self.cursor, self.now, self.reads = project, None, 1000.0, 0

    def look(self, seconds):
        self.now += seconds
        pipeline, cache = load_pipeline(self.project.yaml), self.project.store.stat_cache

        def read():
            self.reads += 1
            return read_contents(pipeline, cache)

        found = notice(seen_in(self.cursor), look_at(pipeline, cache), self.now, SETTLE, read)
        self.cursor = found.seen.as_text()
        return found


def test_a_change_counts_once_when_it_stands_still(watched):
    watcher, sums = Watcher(watched), watched.folder / "data" / "sums.jsonl"
    assert "from now on" in watcher.look(0).reason
    assert watcher.look(60).reason.endswith("unchanged")
    sums.write_text(sums.read_text() + chat_row("1 + 9", "10"))
    assert "stands still" in watcher.look(10).reason
    assert watcher.look(10).changed == () and watcher.reads == 1
    assert watcher.look(30).changed == ("dataset_sums",)
    assert watcher.look(30).changed == () and watcher.look(3000).changed == ()


def test_a_file_that_grows_is_not_read_before_it_stands_still(watched):
    watcher, sums = Watcher(watched), watched.folder / "data" / "sums.jsonl"
    watcher.look(0)
    for count in range(8):
        with sums.open("a") as file:
            file.write(chat_row(f"{count} + 9", str(count + 9)))
        assert watcher.look(25).changed == () and watcher.reads == 1
    assert watcher.look(25).changed == ()
    assert watcher.look(6).changed == ("dataset_sums",)


def test_touched_files_and_the_way_back_are_no_change(watched):
    watcher, sums = Watcher(watched), watched.folder / "data" / "sums.jsonl"
    watcher.look(0)
    os.utime(sums)
    assert "waits" in watcher.look(10).reason
    assert watcher.look(40).reason == "touched, but the contents are the same"
    before = sums.read_bytes()
    sums.write_text("half")
    watcher.look(10)
    sums.write_bytes(before)
    watcher.look(10)
    assert watcher.look(40).reason == "touched, but the contents are the same"


def test_another_path_in_the_yaml_is_no_change_of_contents(watched):
    watcher, data = Watcher(watched), watched.folder / "data"
    watcher.look(0)
    shutil.copy(data / "echoes.jsonl", data / "sums.v2.jsonl")
    entries = watched.config()["datasets"]
    watched.edit(datasets=[{**entries[0], "path": "data/sums.v2.jsonl", "name": None}, entries[1]])
    watcher.look(10)
    assert watcher.look(40).changed == ()


def test_a_source_that_is_gone_is_an_error_and_no_change(watched):
    watcher, sums = Watcher(watched), watched.folder / "data" / "sums.jsonl"
    watcher.look(0)
    kept = sums.rename(sums.with_suffix(".kept"))
    with pytest.raises(StoreError, match=r"sums\.jsonl: No such file"):
        watcher.look(60)
    kept.rename(sums)
    assert watcher.look(60).changed == () and watcher.look(60).changed == ()


def test_what_is_kept_stays_small_and_what_cannot_be_read_starts_anew(watched):
    watcher = Watcher(watched)
    watcher.look(0)
    assert len(watcher.cursor) < 2000
    watcher.cursor = "{no json"
    assert "from now on" in watcher.look(60).reason
    watcher.cursor = '{"other": 1}'
    assert "from now on" in watcher.look(60).reason


def test_a_look_costs_no_reading(watched):
    pipeline, cache = load_pipeline(watched.yaml), watched.store.stat_cache
    (watched.folder / "data" / "sums.jsonl").chmod(0)
    started = time.monotonic()
    look_at(pipeline, cache)
    assert time.monotonic() - started < 1
