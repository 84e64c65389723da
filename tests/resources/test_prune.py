"""Pruning: never what a ref names or is about to name, and nothing at all where that cannot be told."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from support.modules import load_module

from tunemill.pipelines.cli import main
from tunemill.resources.building import lease_of
from tunemill.resources.errors import StoreError
from tunemill.resources.prune import find_garbage, prune
from tunemill.resources.store import Published, Store

PUBLISHING = Path(__file__).with_name("publishing.py")
NOBODY = 65534


@pytest.fixture(scope="module")
def publishing():
    return load_module(PUBLISHING)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state")


def prune_against_publishers(state: Path, prunes: int, seconds: float) -> tuple[int, int]:
    """Prune while three processes publish; returns how many artifacts were published, and how many deleted."""
    store, deleted, done = Store(state), 0, 0
    children = [
        subprocess.Popen(
            [sys.executable, str(PUBLISHING), str(state), f"p{number}", str(seconds)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    while any(child.poll() is None for child in children) or done < prunes:
        try:
            deleted += sum(item.why == "no node points to it" for item in prune(store))
            done += 1
        except StoreError as error:  # before the first ref, which is told
            assert "there is no ref" in str(error)
    assert done >= prunes
    published = 0
    for child in children:
        said, wrong = child.communicate(timeout=60)
        assert child.returncode == 0, wrong
        published += int(said.split()[0])
    for pipeline, _, ref in store.refs.all():
        assert isinstance(store.lookup(ref.stage, ref.key), Published), pipeline
    return published, deleted


@pytest.mark.slow
def test_nothing_is_lost_that_others_publish_or_take_meanwhile(store):
    published, deleted = prune_against_publishers(store.root, 30, 4)
    assert 0 < deleted < published


@pytest.mark.exhaustive
def test_a_thousand_prunes_lose_nothing(store):
    published, deleted = prune_against_publishers(store.root, 1000, 60)
    assert 0 < deleted < published


def test_what_a_running_computation_reads_is_kept_although_no_node_names_it(store, publishing):
    old = publishing.publish(store, "old", "p")
    publishing.publish(store, "new", "p")
    with store.building("stage", "b" * 64, print, [old]) as building:
        assert prune(store) == []
        assert old.folder.exists()
        (building.checkpoints / "step-1").write_text("resumable")
    assert prune(store) == []
    assert {item.folder.name for item in prune(store, checkpoints=True)} == {"b" * 64, old.key}
    assert not old.folder.exists()


def removed(refs: Path) -> None:
    refs.rename(refs.with_name("elsewhere"))


def emptied(refs: Path) -> None:
    removed(refs)
    refs.mkdir()


def a_file(refs: Path) -> None:
    removed(refs)
    refs.write_text("")


def a_dangling_link(refs: Path) -> None:
    removed(refs)
    refs.symlink_to("nowhere")


def a_loop(refs: Path) -> None:
    removed(refs)
    refs.symlink_to(refs.name)


def a_pipeline_that_is_a_file(refs: Path) -> None:
    (refs / "other").write_text("")


def a_pipeline_that_is_a_dangling_link(refs: Path) -> None:
    (refs / "other").symlink_to("nowhere")


def a_ref_that_is_a_folder_of_something_else(refs: Path) -> None:
    (refs / "p" / "x.json").mkdir()
    (refs / "p" / "x.json" / "notes.txt").write_text("")


@pytest.mark.parametrize(
    "damage",
    [
        removed,
        emptied,
        a_file,
        a_dangling_link,
        a_loop,
        a_pipeline_that_is_a_file,
        a_pipeline_that_is_a_dangling_link,
        a_ref_that_is_a_folder_of_something_else,
    ],
)
def test_no_answer_is_not_the_answer_that_nothing_is_named(store, publishing, damage):
    published = publishing.publish(store, "a", "p")
    damage(store.root / "refs")
    for checkpoints in (False, True):
        with pytest.raises(StoreError, match=r"refs.*(cannot be listed|there is no ref|damaged|nowhere)"):
            prune(store, checkpoints)
    assert published.folder.exists() and not list((store.root / "trash").glob("*/*"))


# What nobody may not import is imported by a first run.
AS_NOBODY = """
import os, sys
from tunemill.pipelines.cli import main
main([*sys.argv[1:-1], sys.argv[-1] + "/none"])
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read")
@pytest.mark.parametrize(
    ("folder", "command"),
    [("refs", ["cache", "prune"]), ("refs/p", ["cache", "prune"]), ("artifacts", ["cache", "verify"])],
)
def test_what_may_not_be_read_is_an_error_and_nothing_is_deleted(publishing, folder, command):
    with tempfile.TemporaryDirectory() as name:
        state = Path(name) / "state"
        published = publishing.publish(Store(state), "a", "p")
        for path in (Path(name), state, *state.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        (state / folder).chmod(0)
        ran = subprocess.run(
            [sys.executable, "-c", AS_NOBODY.format(nobody=NOBODY), *command, "--state", str(state)],
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 1, ran.stdout
        assert f"{state / folder}: cannot be listed" in ran.stderr and "Traceback" not in ran.stderr
        assert published.folder.exists()


def test_a_prune_that_died_is_finished_by_the_next(store, publishing):
    publishing.publish(store, "a", "p")
    left = store.root / "trash" / "dead" / "0" / "data"
    left.mkdir(parents=True)
    (left / "x").write_text("")
    left.chmod(0o555)
    prune(store)
    assert not list((store.root / "trash").iterdir())


def test_an_attempt_of_somebody_alive_is_no_garbage(store, publishing):
    publishing.publish(store, "a", "p")
    with store.building("stage", "b" * 64, print) as building:
        assert find_garbage(store) == []
        (building.logs / "output.log").write_text("so far")
    place = building.folder.parent
    assert [item.folder for item in find_garbage(store)] == [place]
    lease_of(place).write_text('{"host": "elsewhere", "pid": 1, "born": "1", "token": "x"}')
    assert find_garbage(store) == []
    long_ago = time.time() - 3600
    os.utime(lease_of(place), (long_ago, long_ago))
    assert [item.folder for item in find_garbage(store)] == [place]


def test_what_stages_keep_goes_only_where_it_is_asked_for_and_nobody_writes_there(store, capsys):
    answers = store.root / "kept" / "judgements"
    answers.mkdir(parents=True)
    (answers / "one.json").write_text("{}")
    told = ["--state", str(store.root), "--json"]
    assert main(["cache", "ls", *told]) == 0
    listed = {"stage": "judgements", "path": str(answers), "bytes": 2, "files": 1}
    assert json.loads(capsys.readouterr().out)["kept"] == [listed]
    assert main(["cache", "ls", *told[:2]]) == 0
    assert f"judgements keeps 1 file, 2 B, in {answers}" in capsys.readouterr().out
    assert main(["cache", "prune", *told]) == 0 and answers.exists()
    assert main(["cache", "prune", "--kept", "--dry-run", *told]) == 0 and answers.exists()
    assert str(answers) in capsys.readouterr().out
    with store.building("judgements", "k" * 64, print):
        assert main(["cache", "prune", "--kept", *told[:2]]) == 0 and answers.exists()
        assert "stays: judgements is running" in capsys.readouterr().out
    assert main(["cache", "prune", "--kept", *told]) == 0 and not answers.exists()
