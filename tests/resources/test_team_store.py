"""A store that a team shares: each key computed once, nothing half-published, nothing damaged served, nothing lost."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from resources.publishing import document
from resources.team_work import FACTS, RHYTHM, Counting, begun, entries, key_of, obtain, store_of
from support.object_store import reached, s3_server
from test_layout import ROOT

from tunemill.resources.errors import StoreError
from tunemill.resources.store import Absent, Published, Store
from tunemill.resources.team_entry import entry_from
from tunemill.resources.team_lease import Rhythm
from tunemill.resources.team_notes import Notes
from tunemill.resources.team_store import Team, files_place, manifest_name

WORK = ROOT / "tests" / "resources" / "team_work.py"
CALM = Rhythm(beat=0.2, expires=30.0, poll=0.05)


def machine(state, url, log, *names, before=(), **environment):
    """A process that is one machine of the team; `before` is what its command begins with."""
    return subprocess.Popen(
        [*before, sys.executable, str(WORK), str(state), url, str(log), *names],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def said_by(process):
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return said


def test_what_one_machine_computed_the_other_takes(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    mine = obtain(one, "rows", log)
    seen = two.lookup("stage", mine.key)
    assert isinstance(seen, Published) and seen.elsewhere and seen.digest == mine.digest
    assert not (seen.data / "rows.txt").exists()
    assert two.key_document("stage", mine.key) == document("rows")
    said = []
    theirs = obtain(two, "rows", log, said.append)
    assert begun(log) == ["rows"]
    assert theirs.manifest == mine.manifest and two.verify(theirs.folder) == []
    assert not theirs.elsewhere and "brought" in said[0]
    assert two.lookup("stage", mine.key) == Published(two.folder("stage", mine.key), mine.manifest)


def test_a_lookup_asks_for_manifests_alone_and_many_are_listed_at_once(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    names = [f"n{number}" for number in range(12)]
    for name in names:
        obtain(one, name, log)
    places = [("stage", key_of(name)) for name in names]
    two.team.look_ahead(places)
    asked = []
    counted = Counting(two.team.objects, asked)
    again = store_of(tmp_path / "two", url)
    object.__setattr__(again.team, "objects", counted)
    again.team.look_ahead(places)
    assert all(isinstance(again.lookup(*place), Published) for place in places)
    assert isinstance(again.lookup("stage", "0" * 64), Absent)
    assert asked == ["listing"]


def test_files_without_a_manifest_are_nothing(url, tmp_path, log):
    """What a machine leaves that ends in the middle of an upload."""
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    mine = obtain(one, "rows", log)
    one.team.objects.delete(manifest_name("stage", mine.key))
    assert isinstance(two.lookup("stage", mine.key), Absent)
    assert (obtain(two, "rows", log).data / "rows.txt").read_text() == "rows"
    assert begun(log) == ["rows", "rows"]
    assert len(entries(two)) == 1


@pytest.mark.parametrize("what", ["a file", "a missing file", "the manifest"])
def test_what_is_damaged_is_refused_computed_again_and_replaced(what, url, tmp_path, log):
    one, two, three = (store_of(tmp_path / name, url) for name in ("one", "two", "three"))
    mine = obtain(one, "rows", log)
    objects = one.team.objects
    entry = entries(one)[mine.key]
    name = f"{files_place('stage', mine.key, entry.upload)}/data/rows.txt"
    flipped = tmp_path / "flipped"
    flipped.write_text("rowz")
    if what == "a file":
        objects.send(name, flipped)
    elif what == "a missing file":
        objects.delete(name)
    else:
        stored = objects.get(manifest_name("stage", mine.key))
        objects.replace(
            manifest_name("stage", mine.key), stored.content.replace(b"rows", b"rowz"), stored.mark
        )
    if what != "the manifest":
        with pytest.raises(StoreError, match=r"data/rows.txt"):
            two.bring(two.lookup("stage", mine.key), print)
    refused = two.lookup("stage", mine.key)
    assert isinstance(refused, Absent) and refused.refused and "is damaged" in refused.reason
    obtain(two, "rows", log)
    assert begun(log) == ["rows", "rows"]
    assert (obtain(three, "rows", log).data / "rows.txt").read_text() == "rows"
    assert begun(log) == ["rows", "rows"]


def test_of_two_that_publish_at_once_the_second_takes_what_the_first_has(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    alone = Store(tmp_path / "two")
    obtain(one, "rows", log)
    made = obtain(alone, "rows", log)
    said = []
    # Without a lease, as what an earlier run could not send: what is here stays.
    assert two.share(made, said.append) == made and said == []
    # With one: computed just now, and something else has come out.
    with two.building("stage", key_of("other"), said.append) as building:
        (building.data / "rows.txt").write_text("two's")
        ready = two.prepare(building, document("other"), FACTS, lambda _: {})
        published = two.publish(building, ready)
        theirs = publish_past_the_lease(one, "other", "one's")
        shared = two.share(published, said.append, building.team_lease)
    assert shared.digest == theirs.digest and (shared.data / "rows.txt").read_text() == "one's"
    assert "another machine has published this" in said[-2] and "brought" in said[-1]


def publish_past_the_lease(store, name, text):
    """What a machine publishes that had it already."""
    alone = Store(store.root)
    with alone.building("stage", key_of(name), print) as building:
        (building.data / "rows.txt").write_text(text)
        published = alone.publish(building, alone.prepare(building, document(name), FACTS, lambda _: {}))
    return store.share(published, print)


def test_an_upload_that_was_cut_off_goes_on_under_its_name(url, tmp_path, log):
    one = store_of(tmp_path / "one", url)
    mine = obtain(Store(tmp_path / "one"), "rows", log, size=5_000_000)
    cut = Counting(one.team.objects, [])

    def create(*_):
        raise StoreError("the server is gone")

    cut.create = create
    object.__setattr__(one.team, "objects", cut)
    said = []
    assert one.share(mine, said.append) == mine
    assert "kept here; the next run sends it" in said[0] and entries(one) == {}
    again = store_of(tmp_path / "one", url)
    sent = []
    object.__setattr__(again.team, "objects", Counting(again.team.objects, sent))
    again.share(mine, said.append)
    assert said[-1].startswith("published for the team") and "send" not in sent
    assert len(entries(again)) == 1


def test_an_upload_of_another_result_of_the_key_begins_anew(url, tmp_path):
    """Its files may have the sizes of what was computed before."""
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    cut = Counting(one.team.objects, [])

    def create(*_):
        raise StoreError("the server is gone")

    cut.create = create
    object.__setattr__(one.team, "objects", cut)
    publish_past_the_lease(one, "rows", "rowx")
    made = publish_past_the_lease(store_of(tmp_path / "one", url), "rows", "rowy")
    assert len(entries(two)) == 1
    brought = two.bring(two.lookup("stage", made.key), print)
    assert (brought.data / "rows.txt").read_text() == "rowy"


def test_a_result_stays_where_that_of_the_team_came_first_and_is_damaged(url, tmp_path):
    one, two, three = (store_of(tmp_path / name, url) for name in ("one", "two", "three"))
    said, flipped = [], tmp_path / "flipped"
    flipped.write_text("on?'s")
    with two.building("stage", key_of("rows"), said.append) as building:
        (building.data / "rows.txt").write_text("two's")
        own = two.publish(building, two.prepare(building, document("rows"), FACTS, lambda _: {}))
        theirs = publish_past_the_lease(one, "rows", "one's")
        upload = files_place("stage", theirs.key, entries(one)[theirs.key].upload)
        one.team.objects.send(f"{upload}/data/rows.txt", flipped)
        assert two.share(own, said.append, building.team_lease) == own
    assert "data/rows.txt" in said[-1] and "stays" in said[-1]
    two.share(own, said.append)
    assert said[-1].startswith("published for the team")
    assert (three.bring(three.lookup("stage", own.key), print).data / "rows.txt").read_text() == "two's"


def test_a_lease_that_could_not_be_given_back_is_taken_again_by_the_same_process(url, tmp_path):
    """A step that is tried again in a process that lives on must not wait for itself."""
    one = store_of(tmp_path / "one", url)
    gone = Counting(one.team.objects, [])

    def replace(*_):
        raise StoreError("the server is gone")

    gone.replace = replace
    with Team(url, Notes(url, tmp_path), gone, RHYTHM).holding("stage", key_of("other"), print):
        pass
    taken = threading.Event()

    def take_again():
        with one.team.holding("stage", key_of("other"), lambda _: None):
            taken.set()

    threading.Thread(target=take_again, daemon=True).start()
    assert taken.wait(20)


def test_a_manifest_that_contradicts_itself_is_refused_once_for_all(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    mine = obtain(one, "rows", log)
    name = manifest_name("stage", mine.key)
    stored = one.team.objects.get(name)
    entry = entry_from(stored.content, "stage", mine.key)
    wrong = dataclasses.replace(entry, manifest={**entry.manifest, "digest": "0" * 64})
    one.team.objects.replace(name, wrong.as_bytes(), stored.mark)
    with pytest.raises(StoreError, match="contradicts itself"):
        two.bring(two.lookup("stage", mine.key), print)
    assert isinstance(two.lookup("stage", mine.key), Absent)
    obtain(two, "rows", log)
    assert begun(log) == ["rows", "rows"]
    assert entries(two)[mine.key].manifest["digest"] == mine.digest


def test_who_one_is_stands_in_no_url_wherever_it_comes_from(tmp_path):
    with pytest.raises(StoreError, match="leave out who you are") as caught:
        Store(tmp_path).before("s3://key:very-secret@bucket/team")
    assert "very-secret" not in str(caught.value)


@pytest.mark.slow
def test_a_server_that_goes_away_in_the_middle_costs_no_result(tmp_path, monkeypatch):
    def say(text):
        said.append(text)

    said, url = [], "s3://rows/team"
    with s3_server() as server, reached(server, ["s3"], monkeypatch):
        one = store_of(tmp_path / "one", url, CALM)
        with one.building("stage", key_of("rows"), say) as building:
            (building.data / "rows.txt").write_text("rows")
            ready = one.prepare(building, document("rows"), FACTS, lambda _: {})
            server.stop()
            published = one.share(one.publish(building, ready), say, building.team_lease)
    assert "cannot be reached" in said[-1] and "kept here" in said[-1]
    assert isinstance(one.lookup("stage", published.key), Published)
    with pytest.raises(StoreError, match="--store off"):
        one.lookup("stage", key_of("another"))
    with s3_server() as server, reached(server, ["s3"], monkeypatch):
        store_of(tmp_path / "one", url).share(published, say)
        assert said[-1].startswith("published for the team")
        assert len(entries(store_of(tmp_path / "two", url))) == 1


def test_no_credential_is_kept(url, tmp_path, log, s3):
    obtain(store_of(tmp_path / "one", url), "rows", log)
    two = store_of(tmp_path / "two", url)
    obtain(two, "rows", log)
    secret = s3.environment["AWS_SECRET_ACCESS_KEY"].encode()
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret not in path.read_bytes(), path


def in_another_namespace(*namespaces):
    """What a command begins with that no process here can be told of; skips where that is not allowed."""
    before = ["unshare", "--fork", "--kill-child", *namespaces]
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("namespaces cannot be made here")
    return before


def wait_until(true, seconds=30.0):
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "too late"
        time.sleep(0.02)


def test_a_machine_that_dies_is_taken_over_from_after_its_silence(url, tmp_path, log):
    log.touch()
    before = in_another_namespace("--pid", "--mount-proc")
    dead = machine(tmp_path / "one", url, log, "rows", before=before, SECONDS="60")
    wait_until(lambda: begun(log))
    os.killpg(dead.pid, signal.SIGKILL)
    dead.wait()
    said, started = [], time.monotonic()
    obtain(store_of(tmp_path / "two", url), "rows", log, said.append)
    assert time.monotonic() - started >= 0.8
    assert said[0].startswith("waiting for process ") and said[-1].startswith("published for the team")
    assert begun(log) == ["rows", "rows"]


def test_a_machine_that_was_only_asleep_publishes_nothing_past_its_successor(url, tmp_path, log):
    log.touch()
    before = in_another_namespace("--pid", "--mount-proc")
    asleep = machine(tmp_path / "one", url, log, "rows", before=before, SECONDS="0.5")
    wait_until(lambda: begun(log))
    os.killpg(asleep.pid, signal.SIGSTOP)
    two = store_of(tmp_path / "two", url, CALM)
    short = store_of(tmp_path / "two", url)
    with short.building("stage", key_of("rows"), print) as building:
        os.killpg(asleep.pid, signal.SIGCONT)
        said = said_by(asleep)
        assert "has taken over" in said and "kept here" in said, said
        assert entries(two) == {}
        (building.data / "rows.txt").write_text("rows")
        ready = two.prepare(building, document("rows"), FACTS, lambda _: {})
        two.share(two.publish(building, ready), print, building.team_lease)
    (entry,) = entries(two).values()
    assert entry.fence == building.team_lease.state.number == 2


@contextmanager
def two_networks(s3):
    """Two network namespaces with a way to the S3 server each; yields what begins a command there, and its URL."""
    names, port = [f"tunemill-{os.getpid()}-{number}" for number in (1, 2)], s3.endpoint.rpartition(":")[2]
    run = lambda *words: subprocess.run(words, check=True, capture_output=True)  # noqa: E731
    try:
        try:
            for number, name in enumerate(names, 1):
                link, there = f"tm{os.getpid() % 10000}a{number}", f"tm{os.getpid() % 10000}b{number}"
                run("ip", "netns", "add", name)
                run("ip", "link", "add", link, "type", "veth", "peer", "name", there)
                run("ip", "link", "set", there, "netns", name)
                run("ip", "addr", "add", f"10.231.{number}.1/24", "dev", link)
                run("ip", "link", "set", link, "up")
                run("ip", "netns", "exec", name, "ip", "addr", "add", f"10.231.{number}.2/24", "dev", there)
                run("ip", "netns", "exec", name, "ip", "link", "set", there, "up")
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {error}")
        # Not in there: what fails in a test is no reason to skip it.
        yield [
            (["ip", "netns", "exec", name], f"http://10.231.{number}.1:{port}")
            for number, name in enumerate(names, 1)
        ]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
def test_two_machines_compute_each_of_fifty_keys_once(tmp_path, log, monkeypatch):
    names = [f"n{number}" for number in range(50)]
    with s3_server(address="0.0.0.0") as server, reached(server, ["s3"], monkeypatch):  # noqa: S104  of a namespace
        url = server.url("fifty")
        with two_networks(server) as networks:
            both = [
                machine(
                    tmp_path / f"m{number}", url, log, *names,
                    before=[*before, *in_another_namespace("--pid", "--mount-proc")],
                    AWS_ENDPOINT_URL=endpoint, SECONDS="0.02", BYTES="2000", EXPIRES="60",
                )
                for number, (before, endpoint) in enumerate(networks)
            ]  # fmt: skip
            said = [said_by(one) for one in both]
        assert sorted(begun(log)) == sorted(names)
        assert len(entries(store_of(tmp_path / "m0", url))) == 50
    for text in said:
        assert text.count("got ") == 50


@pytest.mark.slow
def test_machines_that_are_killed_anywhere_lose_nothing_and_publish_nothing_half(url, tmp_path, log):
    chance = random.Random(17)
    names = [f"n{number}" for number in range(20)]
    log.touch()

    def start(number):
        mixed = chance.sample(names, len(names))
        return machine(
            tmp_path / f"m{number}", url, log, *mixed, SECONDS="0.03", BYTES="2000000", EXPIRES="60"
        )

    running, killed = [start(0), start(1)], set()
    for kill in range(8):
        time.sleep(chance.uniform(0.7, 2.0))
        number = kill % 2
        killed.add(running[number].pid)
        os.killpg(running[number].pid, signal.SIGKILL)
        running[number].communicate()
        entries(store_of(tmp_path / "look", url))
        running[number] = start(number)
    for one in running:
        said_by(one)
    found = entries(store_of(tmp_path / "look", url))
    assert set(found) == {key_of(name) for name in names}
    # Each beginning but those that were killed has an end.
    ends = [line.split()[1] for line in log.read_text().splitlines() if line.startswith("end")]
    assert set(ends) == set(names) and len(begun(log)) - len(ends) <= 8
    # Nobody who lives holds any: one that was killed between its result and that may.
    objects = store_of(tmp_path / "look", url).team.objects
    leases = [json.loads(objects.get(f"leases/stage/{key_of(name)}.json").content) for name in names]
    assert {json.loads(lease["holder"])["pid"] for lease in leases if lease["holder"]} <= killed
