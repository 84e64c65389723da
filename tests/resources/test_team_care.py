"""Looking after a team's store: damage is found, and nothing that anybody may need is deleted."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from resources.publishing import document, point
from resources.team_work import begun, obtain, store_of

from tunemill.pipelines.cli import main
from tunemill.pipelines.run.team import as_input
from tunemill.resources.canonical import hash_document
from tunemill.resources.errors import StoreError
from tunemill.resources.evict import evict
from tunemill.resources.folders import one_at_a_time, remove_tree
from tunemill.resources.pins import Pin
from tunemill.resources.prune import prune
from tunemill.resources.store import Absent, Published, Store
from tunemill.resources.team_care import prune_team, team_artifacts, team_garbage, verify_team

FACTS = {"pipeline": "p", "node": "n", "metrics": {}, "seconds": 1.0}


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def store(shared, tmp_path):
    return store_of(tmp_path / "one", f"file://{shared}")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def make_old(folder, days):
    """As if it had been written so many days ago, by the clock of the folder."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def made_from(store, name, *inputs):
    """An artifact that was made from others."""
    edges = [{"node": "up", "key": item.key, "digest": item.digest} for item in inputs]
    with store.building("stage", hash_document(document(name)), print) as building:
        (building.data / "rows.txt").write_text(name)
        facts = {**FACTS, "inputs": {"rows": edges}}
        ready = store.prepare(building, document(name), facts, lambda _: {})
        return store.share(store.publish(building, ready), print, building.team_lease)


def keys(store):
    return {item.place[1] for item in team_artifacts(store.team.objects)}


def test_verifying_finds_a_flipped_byte_and_the_next_run_mends_it(store, shared, log, tmp_path):
    mine, other = obtain(store, "rows", log), obtain(store, "others", log)
    (rows,) = (shared / "files" / "stage" / mine.key).rglob("rows.txt")
    rows.write_text("rowz")
    looked = {item.place[1]: why for item, why in verify_team(store.team.objects)}
    assert looked[other.key] is None and "rows.txt" in looked[mine.key]
    two = store_of(tmp_path / "two", f"file://{shared}")
    assert isinstance(two.lookup("stage", mine.key), Absent)
    obtain(two, "rows", log)
    assert all(why is None for _, why in verify_team(store.team.objects))


def test_pruning_keeps_what_is_young_needed_living_or_under_way(store, shared, log):
    base = obtain(store, "base", log)
    model = made_from(store, "model", base)
    old, pinned = obtain(store, "old", log), obtain(store, "pinned", log)
    torn = shared / "files" / "stage" / ("f" * 64) / "abc" / "data"
    torn.mkdir(parents=True)
    (torn / "half").write_text("half")
    make_old(shared, 40)
    young = made_from(store, "young", old)
    (shared / "files" / "stage" / ("e" * 64) / "def" / "data").mkdir(parents=True)
    (shared / "files" / "stage" / ("e" * 64) / "def" / "data" / "going_on").write_text("going on")
    living = obtain(store, "living", log)
    needed = {("stage", pinned.key)}
    objects = store.team.objects
    told = team_garbage(objects, needed, 30)
    assert keys(store) == {item.key for item in (base, model, old, pinned, young, living)}
    assert prune_team(objects, needed, 30) == told
    assert keys(store) == {item.key for item in (old, pinned, young, living)}
    there = {path.name for path in (shared / "files" / "stage").iterdir() if any(path.rglob("*.txt"))}
    assert there == {item.key for item in (old, pinned, young, living)}
    assert not (torn / "half").exists()
    assert (shared / "files" / "stage" / ("e" * 64) / "def" / "data" / "going_on").exists()
    # What a machine is computing now is kept however old what is there is.
    make_old(shared, 40)
    assert pinned.key in str(team_garbage(objects, set(), 30))
    with store.team.holding("stage", pinned.key, print):
        assert pinned.key not in str(team_garbage(objects, set(), 30))


def test_what_somebody_else_has_put_there_stops_no_pruning(store, shared, log):
    mine = obtain(store, "rows", log)
    for folder in ("files", "leases", "manifests"):
        (shared / folder / ".DS_Store").touch()
    assert team_garbage(store.team.objects, set(), 30) == []
    assert keys(store) == {mine.key}


def test_room_is_made_by_what_the_team_has_and_nobody_points_to(store, log, tmp_path):
    made = [obtain(store, f"n{number}", log, size=100_000) for number in range(4)]
    mine = obtain(Store(tmp_path / "one"), "unshared", log, size=100_000)
    for number, item in enumerate([*made, mine]):
        os.utime(item.folder, (number, number))
    point(store, "pipeline", made[0])
    store.pins.write("other", "node", Pin("stage", made[1].key, made[1].digest, "2026-11-28", ""))
    gone = evict(store, 350_000)
    assert [item.folder.name for item in gone] == [made[2].key, made[3].key]
    found = store.lookup("stage", made[2].key)
    assert isinstance(found, Published) and found.elsewhere
    assert (store.bring(found, print).data / "rows.txt").read_text() == "n2"
    assert isinstance(store.lookup_here("stage", mine.key), Published)


def test_nothing_goes_where_nobody_knows_what_is_named(store, log, capsys):
    point(store, "p", obtain(store, "rows", log, lambda _: None))
    (ref,) = (path for path in store.refs.root.rglob("*") if path.is_file())
    ref.write_text('{"stage"')
    with pytest.raises(StoreError, match="is damaged, so what it points to is not known"):
        evict(store, 0)
    options = ["--state", str(store.root), "--store", store.team.objects.url, "--days", "0"]
    assert main(["cache", "prune", *options]) == 1
    assert "is damaged, so what it points to is not known" in capsys.readouterr().err
    assert len(keys(store)) == 1


def test_an_input_that_was_evicted_before_its_use_was_noted_is_brought_back(store, log):
    mine = obtain(store, "rows", log, size=100_000)
    node = SimpleNamespace(name="trained")
    assert [item.folder.name for item in evict(store, 0)] == [mine.key]
    back = as_input(store, node, "rows", mine, print)
    assert back == mine and (mine.data / "rows.txt").read_text() == "rows"
    alone = Store(store.root)
    gone = obtain(alone, "unshared", log)
    remove_tree(gone.folder)
    with pytest.raises(StoreError, match="deleted meanwhile"):
        as_input(alone, node, "rows", gone, print)


def test_while_the_team_is_asked_what_may_go_nobody_is_kept_from_naming_artifacts(store, log):
    made = [obtain(store, f"n{number}", log, size=1000) for number in range(2)]
    team = store.team

    def slow(stage, key):
        # Another process names one of them meanwhile.
        with store.unpruned():
            point(store, "pipeline", made[0])
        return team.lookup(stage, key)

    asked = SimpleNamespace(look_ahead=team.look_ahead, lookup=slow)
    gone = evict(Store(store.root, asked), 0)
    assert [item.folder.name for item in gone] == [made[1].key]
    assert isinstance(store.lookup_here("stage", made[0].key), Published)


def test_two_that_make_room_at_once_harm_nobody(store, log):
    for number in range(6):
        obtain(store, f"n{number}", log, size=1000)
    with ThreadPoolExecutor(4) as pool:
        gone = [item.folder.name for found in pool.map(lambda _: evict(store, 0), range(4)) for item in found]
    assert len(gone) == len(set(gone)) == 6


def test_pruning_leaves_a_transfer_that_is_going_on(store, tmp_path, monkeypatch):
    point(store, "pipeline", obtain(store, "rows", tmp_path / "log"))
    old, working, vanishing = (store.root / "arriving" / "stage" / (letter * 64) for letter in "abc")
    for folder in (old, working, vanishing):
        (folder / "data").mkdir(parents=True)
        (folder / "data" / "half").write_text("half")
    make_old(store.root / "arriving", 2)

    def gone_meanwhile(path):
        # It is renamed between the listing and the look.
        if path.name == "half" and path.is_relative_to(vanishing):
            raise FileNotFoundError(path)
        return path.stat(follow_symlinks=False)

    monkeypatch.setattr(Path, "lstat", gone_meanwhile)
    with one_at_a_time(working):
        gone = {item.folder for item in prune(store)}
    assert gone == {old} and working.exists() and vanishing.exists()


def test_what_is_behind_a_node_whose_artifact_is_elsewhere_is_not_pruned(store, shared, log, tmp_path):
    base = obtain(store, "base", log)
    model = made_from(store, "model", base)
    two = store_of(tmp_path / "two", f"file://{shared}")
    obtain(two, "base", log)
    point(two, "pipeline", two.lookup("stage", model.key))
    assert prune(two) == []
    assert isinstance(two.lookup_here("stage", base.key), Published)


def test_what_is_found_damaged_is_sent_again_by_the_machine_that_has_it_whole(
    store, shared, log, tmp_path, capsys
):
    mine = obtain(store, "rows", log, lambda _: None)
    (rows,) = (shared / "files" / "stage" / mine.key).rglob("rows.txt")
    rows.write_text("rowz")
    verify = ["cache", "verify", "--store", f"file://{shared}", "--state", str(tmp_path / "one")]
    assert main(verify) == 1
    assert "the next run sends what is here, or computes it" in capsys.readouterr().out
    obtain(store, "rows", log, lambda _: None)
    assert begun(log) == ["rows"] and main(verify) == 0


def test_the_commands_look_after_a_teams_store(store, shared, log, tmp_path, capsys, monkeypatch):
    mine = obtain(store, "rows", log, lambda _: None)
    monkeypatch.chdir(tmp_path)
    url = f"file://{shared}"

    def cache(*words):
        code = main(["cache", *words, "--store", url, "--json", "--state", str(tmp_path / "state")])
        return code, json.loads(capsys.readouterr().out)

    code, told = cache("ls")
    assert code == 0 and [item["key"] for item in told["artifacts"]] == [mine.key]
    assert cache("verify") == (0, {"store": url, "checked": 1, "damaged": []})
    make_old(shared, 31)
    code, told = cache("prune", "--dry-run")
    assert code == 0 and len(told["garbage"]) == 2 and keys(store) == {mine.key}
    code, told = cache("prune", "--days", "60")
    assert told["garbage"] == []
    cache("prune")
    assert keys(store) == set() and not any((shared / "files").rglob("*.txt"))
    shutil.rmtree(shared)
    assert main(["cache", "ls", "--store", url, "--state", str(tmp_path / "state")]) == 1
    assert "make it once, or mount" in capsys.readouterr().err
    assert main(["cache", "prune", "--days", "3", "--state", str(tmp_path / "state")]) == 1
    assert "--days: is of a team's store" in capsys.readouterr().err
    room = ["cache", "prune", "--keep-bytes", "1GB", "--kept", "--store", "off", "--state"]
    assert main([*room, str(tmp_path / "state")]) == 1
    assert "--kept: --keep-bytes deletes nothing but" in capsys.readouterr().err
    assert main(["cache", "prune", "--kept", "--store", "s3://b/c", "--state", str(tmp_path / "state")]) == 1
    assert "leave --store out" in capsys.readouterr().err
