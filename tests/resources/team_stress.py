"""One machine of a team that does all there is to do with its store, in random order, until it is killed:
`python team_stress.py STATE URL LOG SEED ROUNDS`.

Each line of LOG is what happened: the clock of this computer, the process, a word, a name. What is wrong is an `error`.
"""

import json
import os
import random
import sys
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from resources.publishing import document, point
from resources.team_work import FACTS, key_of, store_of

from tunemill.resources import team_care
from tunemill.resources.errors import StoreError
from tunemill.resources.evict import evict
from tunemill.resources.prune import prune
from tunemill.resources.store import Published, Store
from tunemill.resources.team_care import prune_team, team_artifacts, verify_team
from tunemill.resources.team_lease import Rhythm

NAMES = [f"n{number}" for number in range(6)]
# A minute of these machines is a second here.
RHYTHM = Rhythm(beat=0.2, expires=4.0, poll=0.05)
LIVING, TORN = timedelta(seconds=8), timedelta(seconds=60)
REPEATS = 20_000
# What may come of others' damage, deletions and leases.
EXPECTED = (
    "is damaged",
    "is missing",
    "are not what was published",
    "published anew meanwhile",
    "deleted meanwhile",
)


def note(log: Path, word: str, name: str = "", **more: object) -> None:
    line = json.dumps({"at": time.monotonic(), "pid": os.getpid(), "word": word, "name": name, **more})
    with log.open("a") as file:
        # Whoever was killed while it wrote has left half a line.
        file.write(f"\n{line}\n")


def fault_of(published: Published, name: str) -> str | None:
    """What is wrong with the files of an artifact that is here."""
    text = (published.data / "rows.txt").read_text()
    if not text.startswith(f"{name} "):
        return f"{name} holds {text}"
    if (published.data / "deep" / "weights.bin").read_bytes() != text.encode() * REPEATS:
        return f"{name} is of two results"
    return None


def note_sent(log: Path, name: str, since: float, said: list[str]) -> None:
    """What came of sending. Only a machine whose lease was taken over may keep to itself what it has computed."""
    for line in said:
        if line.startswith("published for the team"):
            note(log, "published", name, since=since)
        elif line.startswith("not published") and "has taken over" not in line:
            note(log, "error", name, text=line)


def compute(store: Store, name: str, log: Path, again: bool) -> Published:
    """Compute a result, which is another one each time, where nobody has; or whatever there is."""
    said: list[str] = []
    with store.building("stage", key_of(name), said.append) as building:
        found = store.lookup("stage", key_of(name))
        if isinstance(found, Published) and not again:
            return store.bring(found, said.append)
        note(log, "again" if again else "begin", name)
        text = f"{name} {uuid.uuid4().hex}"
        (building.data / "rows.txt").write_text(text)
        (building.data / "deep").mkdir()
        (building.data / "deep" / "weights.bin").write_bytes(text.encode() * REPEATS)
        ready = store.prepare(building, document(name), FACTS, lambda _: {})
        made = store.publish(building, ready)
        since = time.monotonic()
        shared = store.share(made, said.append, building.team_lease, replacing=again)
        note_sent(log, name, since, said)
        return shared


def obtain(store: Store, name: str, log: Path) -> None:
    found = store.lookup("stage", key_of(name))
    if isinstance(found, Published):
        said: list[str] = []
        # What this machine has made before it was ended may be nowhere else.
        since = time.monotonic()
        found = store.share(store.bring(found, said.append), said.append)
        note_sent(log, name, since, said)
    else:
        found = compute(store, name, log, again=False)
    check(store, found, name, log)
    point(store, "pipeline", found)


def check(store: Store, found: Published, name: str, log: Path) -> None:
    with suppress(FileNotFoundError):
        fault = fault_of(found, name) or "; ".join(store.verify(found.folder))
        if fault:
            note(log, "error", name, text=fault)


def look_after(store: Store, log: Path, chance: random.Random) -> None:
    """What whoever looks after a store does."""
    assert store.team is not None
    match chance.choice(["evict", "prune", "prune team", "verify"]):
        case "evict":
            evict(store, 0)
        case "prune":
            if store.refs.all():
                prune(store)
        case "prune team":
            name_of = {key_of(name): name for name in NAMES}
            note(log, "prunes")
            needed = {("stage", key_of(name)) for name in chance.sample(NAMES, 4)}
            gone = prune_team(store.team.objects, needed, 1 / 86_400)
            names = {name_of[item.name.split("/")[2].removesuffix(".json")] for item in gone if item.mark}
            note(log, "pruned", names=sorted(names))
        case "verify":
            for item, wrong in verify_team(store.team.objects):
                if wrong is not None:
                    name = next(name for name in NAMES if key_of(name) == item.place[1])
                    note(log, "found wrong", name, text=wrong)
                    store.team.notes.forget_sent(*item.place)


def damage(store: Store, name: str, log: Path, scratch: Path) -> None:
    """Flip the bytes of a file in the team's store, as a disk does."""
    assert store.team is not None
    for item in team_artifacts(store.team.objects):
        if item.place[1] == key_of(name) and item.entry is not None:
            rows = f"files/stage/{item.place[1]}/{item.entry.upload}/data/rows.txt"
            scratch.write_text("x" * int(item.entry.manifest["files"]["data/rows.txt"]["bytes"]))
            note(log, "damages", name)
            store.team.objects.send(rows, scratch)
            note(log, "damaged", name)


def act(state: Path, url: str, log: Path, chance: random.Random) -> None:
    """One thing, as a command of its own."""
    store, name = store_of(state, url, RHYTHM), chance.choice(NAMES)
    match chance.choices(["obtain", "again", "look after", "damage"], [12, 2, 5, 1])[0]:
        case "obtain":
            obtain(store, name, log)
        case "again":
            check(store, compute(store, name, log, again=True), name, log)
        case "look after":
            look_after(store, log, chance)
        case "damage":
            damage(store, name, log, state / "scratch")


def main(state: str, url: str, log: str, seed: str, rounds: str) -> int:
    team_care.LIVING, team_care.TORN = LIVING, TORN
    chance = random.Random(int(seed))
    Path(state).mkdir(exist_ok=True)
    note(Path(log), "ready")
    for _ in range(int(rounds)):
        try:
            act(Path(state), url, Path(log), chance)
        except StoreError as error:
            expected = any(word in str(error) for word in EXPECTED)
            note(Path(log), "refused" if expected else "error", text=str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
