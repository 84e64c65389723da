"""One machine of a team: `python team_work.py STATE URL LOG NAME...` computes each name once for the team.

It writes a line into LOG for each beginning and each end of a computation, and says what it got. `SECONDS` of the
environment is how long computing takes, `BYTES` how large its result is, `EXPIRES` after what silence it counts as
dead.
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from resources.publishing import document

from tunemill.resources.canonical import hash_document
from tunemill.resources.store import Published, Store
from tunemill.resources.team_entry import entry_from
from tunemill.resources.team_lease import Rhythm
from tunemill.resources.team_store import files_place, open_team

RHYTHM = Rhythm(beat=0.1, expires=1.0, poll=0.03)


def store_of(state: Path, url: str, rhythm: Rhythm = RHYTHM) -> Store:
    """The store of one machine."""
    return Store(state, open_team(url, state, rhythm))


# What a manifest says beside its files.
FACTS = {"pipeline": "p", "node": "n", "inputs": {}, "metrics": {}, "seconds": 1.0}


def key_of(name):
    return hash_document(document(name))


def begun(log):
    return [line.split()[1] for line in log.read_text().splitlines() if line.startswith("begin")]


def entries(store):
    """Every artifact that the team has, with its files of the size that its manifest says."""
    objects, found = store.team.objects, {}
    for item in list(objects.listing("manifests/")):
        _, stage, key = item.name.removesuffix(".json").split("/")
        entry = entry_from(objects.get(item.name).content, stage, key)
        assert entry is not None, item.name
        place = files_place(stage, key, entry.upload)
        there = {one.name.removeprefix(f"{place}/"): one.bytes for one in objects.listing(f"{place}/")}
        assert there == {name: one["bytes"] for name, one in entry.manifest["files"].items()}
        found[key] = entry
    return found


class Counting:
    """Objects that note what is asked of them."""

    def __init__(self, objects, asked):
        self.objects, self.asked = objects, asked

    def __getattr__(self, name):
        def ask(*arguments):
            self.asked.append(name)
            return getattr(self.objects, name)(*arguments)

        return ask


def note(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(f"{text}\n")


def obtain(store: Store, name: str, log: Path, say=print, seconds: float = 0.0, size: int = 0) -> Published:
    """The artifact of a name with its files here: taken, or computed where nobody has."""
    made, key = document(name), hash_document(document(name))
    for _ in range(2):
        found = store.lookup("stage", key)
        if isinstance(found, Published):
            # What this machine has made before it was ended may be nowhere else.
            return store.share(store.bring(found, say), say)
        with store.building("stage", key, say) as building:
            found = store.lookup("stage", key)
            if isinstance(found, Published):
                continue
            note(log, f"begin {name} {os.getpid()}")
            time.sleep(seconds)
            (building.data / "rows.txt").write_text(name)
            (building.data / "deep").mkdir()
            (building.data / "deep" / "weights.bin").write_bytes(name.encode() * (size // len(name)))
            facts = {
                "pipeline": "p",
                "node": name,
                "inputs": {},
                "metrics": {},
                "seconds": 1.0,
                "host": os.getpid(),
            }
            ready = store.prepare(building, made, facts, lambda digest: {"digest": digest})
            note(log, f"end {name} {os.getpid()}")
            published = store.publish(building, ready)
            return store.share(published, say, building.team_lease)
    raise AssertionError("it was there, and then not")


def main(state: str, url: str, log: str, *names: str) -> int:
    rhythm = replace(RHYTHM, expires=float(os.environ.get("EXPIRES", RHYTHM.expires)))
    store = store_of(Path(state), url, rhythm)
    for name in names:
        got = obtain(
            store,
            name,
            Path(log),
            lambda text: print(text, flush=True),
            float(os.environ.get("SECONDS", "0")),
            int(os.environ.get("BYTES", "0")),
        )
        assert (got.data / "rows.txt").read_text() == name
        assert not store.verify(got.folder), store.verify(got.folder)
        print(f"got {name} {got.manifest['host']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
