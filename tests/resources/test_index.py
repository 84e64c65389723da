"""The index of the store saves time and is never believed: what is listed is what `lookup` says."""

import json
import os
import subprocess
import sys
import time

import pytest
from test_layout import ROOT, imported_files

from tunemill.pipelines.cli import main
from tunemill.resources import index as module
from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import move, remove_tree
from tunemill.resources.index import INDEX_FILE, Summary, summaries
from tunemill.resources.prune import find_garbage
from tunemill.resources.refs import Ref
from tunemill.resources.store import KEY_PARTS, Absent, Published, Store


def publish(store, number):
    document = {part: {} for part in KEY_PARTS} | {"stage": "stage", "version": number}
    facts = {"pipeline": "p", "node": f"n{number}", "inputs": {}, "metrics": {"rows": number}, "seconds": 1.0,
             "started": "2026-11-27T03:14:26+00:00", "tables": [], "plots": []}  # fmt: skip
    with store.building("stage", hash_document(document), print) as building:
        (building.data / "rows.txt").write_text(f"row {number}")
        published = store.publish(building, store.prepare(building, document, facts, lambda _: {}))
    store.refs.write("p", f"n{number}", Ref(published.stage, published.key, published.digest))
    return published


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Five artifacts, all of them in the index."""
    # The clock of the file system is trusted at once: waiting for it is `test_what_may_still_change_...`.
    monkeypatch.setattr(module, "SETTLED_NANOSECONDS", 0)
    made = Store(tmp_path / "state")
    for number in range(5):
        publish(made, number)
    assert listed(made) == looked_up(made)
    assert len(module._read(made.root / INDEX_FILE)) == 5
    return made


def places(store):
    return [(folder.parent.name, folder.name) for folder in store.artifacts()]


def listed(store):
    return summaries(store, places(store))


def looked_up(store):
    """What must be listed, from the manifests."""
    found = {place: store.lookup(*place) for place in places(store)}
    return {
        place: item
        if isinstance(item, Absent)
        else Summary(
            item.digest,
            {name: entry["bytes"] for name, entry in item.manifest["files"].items()},
            {name: item.manifest[name] for name in module.FACTS},
        )
        for place, item in found.items()
    }


def first(store):
    """An artifact whose data can be changed; its manifest is untouched, as its `stat` would tell."""
    folder = store.artifacts()[0]
    for path in (folder, folder / "data"):
        path.chmod(0o755)
    (folder / "data" / "rows.txt").chmod(0o644)
    return folder


def cut_short(folder):
    (folder / "data" / "rows.txt").write_text("")


def file_gone(folder):
    (folder / "data" / "rows.txt").unlink()


def folder_gone(folder):
    remove_tree(folder / "data")


def manifest_gone(folder):
    (folder / "manifest.json").unlink()


def manifest_is_a_folder(folder):
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


def one_byte_of_the_manifest(folder):
    """Of the same size, and with its old time."""
    path = folder / "manifest.json"
    state, text = path.stat(), path.read_text()
    path.chmod(0o644)
    path.write_text(text.replace('"seconds": 1.0', '"seconds": 7.0'))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert path.stat().st_size == state.st_size and path.stat().st_mtime_ns == state.st_mtime_ns


def other_manifest(folder):
    """Whole, but of another artifact: it has another stamp."""
    other = next(path for path in folder.parent.iterdir() if path != folder)
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").write_bytes((other / "manifest.json").read_bytes())


DAMAGE = [
    cut_short, file_gone, folder_gone, manifest_gone, manifest_is_a_folder, one_byte_of_the_manifest, other_manifest,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_artifact_that_was_damaged_after_it_was_indexed_is_listed_as_damaged(store, damage, capsys):
    before, folder = listed(store), first(store)
    damage(folder)
    place = (folder.parent.name, folder.name)
    assert listed(store) == looked_up(store) and listed(store)[place] != before[place]
    if damage is not other_manifest:
        assert isinstance(listed(store)[place], Absent)
        assert main(["status", "--state", str(store.root)]) == 1
        assert main(["cache", "ls", "--state", str(store.root)]) == 0
        said = capsys.readouterr().out
        assert "missing or damaged" in said and said.count("  damaged  ") == 1


def test_what_is_published_and_what_goes_is_listed_although_nobody_tells_the_index(store):
    index = (store.root / INDEX_FILE).read_bytes()
    newer = publish(store, 5)
    gone, aside = store.artifacts()[:2]
    if newer.folder in (gone, aside):
        gone, aside = store.artifacts()[2:4]
    remove_tree(gone)
    store.set_aside(aside.parent.name, aside.name)
    assert (store.root / INDEX_FILE).read_bytes() == index
    assert listed(store) == looked_up(store) and len(listed(store)) == 4
    # And nothing of what is gone stays.
    assert set(module._read(store.root / INDEX_FILE)) == set(places(store))


def test_an_artifact_that_came_back_is_read_anew(store):
    folder = store.artifacts()[0]
    aside = store.set_aside(folder.parent.name, folder.name)
    assert isinstance(summaries(store, [("stage", folder.name)])["stage", folder.name], Absent)
    move(aside, folder)
    assert listed(store) == looked_up(store)


class Edited(Store):
    """A store in which somebody replaces each manifest when it has just been read."""

    def lookup(self, stage, key):
        found = super().lookup(stage, key)
        path = self.folder(stage, key) / "manifest.json"
        text = path.read_text()
        path.unlink()
        path.write_text(text.replace("1.0", "2.0"))
        return found


def test_a_manifest_that_changes_while_it_is_read_is_not_remembered(store):
    (store.root / INDEX_FILE).unlink()
    for folder in store.artifacts():
        folder.chmod(0o755)
    edited = Edited(store.root)
    assert all(isinstance(found, Summary) for found in listed(edited).values())
    assert all(isinstance(found, Absent) for found in listed(store).values())


def flipped(index):
    return index.replace(b'"n3"', b'"n7"')


def cut(index):
    return index[: len(index) // 2]


def sealed_otherwise(index):
    """By another version, with other facts."""
    text = index.partition(b"\n")[2]
    return module.hashlib.sha256(b"tunemill-index-0 \n" + text).hexdigest().encode() + b"\n" + text


@pytest.mark.parametrize(
    "index", [lambda _: b"", lambda _: b"{", lambda _: b"[]", lambda _: b"\xff" * 999, flipped, cut, sealed_otherwise]
)  # fmt: skip
def test_a_damaged_index_is_none_and_is_made_again(store, index):
    path = store.root / INDEX_FILE
    whole = path.read_bytes()
    path.write_bytes(index(whole))
    assert path.read_bytes() != whole
    assert listed(store) == looked_up(store)
    assert path.read_bytes() == whole
    path.unlink()
    assert listed(store) == looked_up(store)
    assert path.read_bytes() == whole


def test_a_store_that_cannot_be_written_is_listed(store):
    path = store.root / INDEX_FILE
    path.unlink()
    # A folder in its place: nobody can replace it by a file, whatever his rights.
    (path / "in the way").mkdir(parents=True)
    assert listed(store) == looked_up(store)
    assert not list(store.root.glob(f".{INDEX_FILE}*"))


def test_no_store_is_made_to_list_it(tmp_path):
    for command in (["status"], ["cache", "ls"]):
        assert main([*command, "--state", str(tmp_path / "none")]) == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_what_may_still_change_unseen_is_not_remembered(store, monkeypatch):
    monkeypatch.undo()
    newest = publish(store, 6)
    assert listed(store) == looked_up(store)
    assert (newest.stage, newest.key) not in module._read(store.root / INDEX_FILE)
    time.sleep(module.SETTLED_NANOSECONDS / 1e9 + 0.1)
    assert listed(store) == looked_up(store)
    assert (newest.stage, newest.key) in module._read(store.root / INDEX_FILE)


def test_nothing_is_deleted_or_found_whole_because_of_the_index(store, capsys):
    """An index that lies, and is sealed."""
    damaged = first(store)
    text = (damaged / "data" / "rows.txt").read_text()
    (damaged / "data" / "rows.txt").write_text(text[::-1])
    (store.root / "refs" / "p" / "n4.json").unlink()
    garbage = find_garbage(store)
    assert len(garbage) == 1
    entries = module._read(store.root / INDEX_FILE)
    assert entries[damaged.parent.name, damaged.name].summary.digest
    module._write(store, dict(list(entries.items())[:2]))
    assert find_garbage(store) == garbage
    assert main(["cache", "verify", "--state", str(store.root)]) == 1
    assert f"{damaged / 'data' / 'rows.txt'}: its contents changed" in capsys.readouterr().out
    readers = ("store.py", "prune.py", "building.py", "refs.py")
    assert not any(
        ROOT / "resources" / "index.py" in imported_files(ROOT / "resources" / name) for name in readers
    )


AUDITED = """
import sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
from tunemill.pipelines.cli import main
code = main(sys.argv[1:])
print(sum(name.endswith("manifest.json") for name in opened), file=sys.stderr)
sys.exit(code)
"""


def manifests_opened(*arguments):
    command = [sys.executable, "-c", AUDITED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stderr), done.stdout


@pytest.mark.slow
def test_a_second_listing_of_100_artifacts_opens_no_manifest(tmp_path):
    store = Store(tmp_path / "state")
    for number in range(100):
        publish(store, number)
    time.sleep(module.SETTLED_NANOSECONDS / 1e9 + 0.1)
    state = ["--state", str(store.root)]
    opened, shown = manifests_opened("status", *state)
    assert opened == 100 and shown.count("present") == 100
    for command in (["status"], ["status", "--json"], ["cache", "ls"], ["cache", "ls", "--json"]):
        assert manifests_opened(*command, *state)[0] == 0
    assert manifests_opened("status", *state)[1] == shown
    newest = publish(store, 100)
    folder = first(store)
    cut_short(folder)
    opened, shown = manifests_opened("cache", "ls", "--json", *state)
    assert opened == 2 and json.loads(shown)["artifacts"][0]["digest"] is None
    assert newest.key in shown


LISTS = """
import sys
from pathlib import Path
from tunemill.resources import index
from tunemill.resources.store import Published, Store
index.SETTLED_NANOSECONDS = 0
store = Store(Path(sys.argv[1]))
for number in range(40):
    if number % 4 == 0:
        (store.root / index.INDEX_FILE).unlink(missing_ok=True)
    places = [(folder.parent.name, folder.name) for folder in store.artifacts()]
    assert len(places) >= 5
    for place, found in index.summaries(store, places).items():
        looked_up = store.lookup(*place)
        assert isinstance(looked_up, Published) and found.digest == looked_up.digest, (place, found)
"""


def test_many_processes_list_and_publish_at_once(store):
    command = [sys.executable, "-c", LISTS, str(store.root)]
    children = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    for number in range(10, 20):
        publish(store, number)
    assert [child.wait() for child in children] == [0, 0, 0]
    assert listed(store) == looked_up(store)
    assert set(module._read(store.root / INDEX_FILE)) == set(places(store))
    assert all(isinstance(store.lookup(*place), Published) for place in places(store))
