"""What others change in a team's store meanwhile, what is computed again, and a place that does not answer."""

import json

import pytest
from resources.publishing import document
from resources.team_work import FACTS, Counting, begun, entries, key_of, obtain, store_of

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.store import Absent, Published, Store
from tunemill.resources.team_care import verify_team
from tunemill.resources.team_store import files_place


def refresh(store, name, text, say=print):
    """Compute a key again whatever is there, as --refresh does."""
    with store.building("stage", key_of(name), say) as building:
        (building.data / "rows.txt").write_text(text)
        published = store.publish(building, store.prepare(building, document(name), FACTS, lambda _: {}))
        return store.share(published, say, building.team_lease, replacing=True)


def test_what_is_computed_again_takes_the_place_of_what_the_team_has(url, tmp_path, log):
    one, two, three = (store_of(tmp_path / name, url) for name in ("one", "two", "three"))
    old = obtain(one, "rows", log)
    seen = three.lookup("stage", old.key)
    new = refresh(two, "rows", "again")
    assert (new.data / "rows.txt").read_text() == "again"
    assert entries(one)[old.key].manifest["digest"] == new.digest != old.digest
    # Whoever has looked before gets what it has seen, and whoever looks now the new one.
    assert (three.bring(seen, print).data / "rows.txt").read_text() == "rows"
    four = store_of(tmp_path / "four", url)
    assert (four.bring(four.lookup("stage", old.key), print).data / "rows.txt").read_text() == "again"
    said = []
    assert refresh(two, "rows", "again", said.append).digest == new.digest
    assert "the same is in" in said[-1]


@pytest.mark.parametrize("damaged", [False, True])
def test_whoever_fetches_what_another_replaces_gets_what_it_has_seen(damaged, url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    old = obtain(one, "rows", log)
    seen = two.lookup("stage", old.key)
    new = refresh(one, "rows", "again")
    if damaged:
        flipped = tmp_path / "flipped"
        flipped.write_text("rowz")
        one.team.objects.send(f"{files_place('stage', old.key, seen.upload)}/data/rows.txt", flipped)
    now = two.lookup("stage", old.key)
    assert now.digest == new.digest
    if damaged:
        with pytest.raises(StoreError, match=r"data/rows.txt"):
            two.bring(seen, print)
        # Of the damaged one nothing is held against the new one.
        assert two.lookup("stage", old.key) == now
    assert (two.bring(now, print).data / "rows.txt").read_text() == "again"


def test_what_was_computed_again_and_could_not_be_sent_is_sent_by_the_next_run(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    old = obtain(one, "rows", log)

    def gone(*_):
        raise StoreError("the server is gone")

    for name in ("send", "get"):
        broken = store_of(tmp_path / "one", url)
        cut = Counting(broken.team.objects, [])
        setattr(cut, name, gone)
        said = []
        with Store(tmp_path / "one").building("stage", old.key, said.append) as building:
            (building.data / "rows.txt").write_text(f"again {name}")
            alone = Store(tmp_path / "one")
            made = alone.publish(building, alone.prepare(building, document("rows"), FACTS, lambda _: {}))
        object.__setattr__(broken.team, "objects", cut)
        broken.share(made, said.append, replacing=True)
        assert "the next run sends it" in said[-1]
        again = store_of(tmp_path / "one", url)
        assert not again.team.has_sent(made)
        again.share(made, said.append)
        assert said[-1].startswith("published for the team") and again.team.has_sent(made)
        assert two.lookup("stage", old.key).digest == made.digest


@pytest.mark.parametrize("by", ["verifying", "pruning"])
def test_what_is_set_aside_or_deleted_while_a_machine_publishes_anew_stops_it_not(by, url, tmp_path, log):
    one, two, three = (store_of(tmp_path / name, url) for name in ("one", "two", "three"))
    old, said = obtain(one, "rows", log), []
    flipped = tmp_path / "flipped"
    flipped.write_text("rowz")
    upload = entries(one)[old.key].upload
    one.team.objects.send(f"{files_place('stage', old.key, upload)}/data/rows.txt", flipped)
    with pytest.raises(StoreError, match=r"data/rows.txt"):
        two.bring(two.lookup("stage", old.key), print)

    class Meanwhile(Counting):
        def replace(self, name, content, mark):
            if name.startswith("manifests/") and "replace" not in self.asked:
                self.asked.append("replace")
                if by == "verifying":
                    assert [why for _, why in verify_team(self.objects)] != [None]
                else:
                    self.objects.delete(name)
            return self.objects.replace(name, content, mark)

    object.__setattr__(two.team, "objects", Meanwhile(two.team.objects, []))
    mine = obtain(two, "rows", log, said.append)
    assert said[-1].startswith("published for the team") and "replace" in two.team.objects.asked
    assert entries(three)[old.key].manifest["digest"] == mine.digest
    obtain(three, "rows", log)
    assert begun(log) == ["rows", "rows"]


def test_a_listing_that_is_behind_makes_nobody_compute_again(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    names = [f"n{number}" for number in range(9)]
    for name in names:
        obtain(one, name, log)

    class Behind(Counting):
        def listing(self, _):
            return iter(())

    object.__setattr__(two.team, "objects", Behind(two.team.objects, []))
    for name in names:
        obtain(two, name, log)
    assert sorted(begun(log)) == names
    object.__setattr__(one.team, "objects", Behind(one.team.objects, []))
    obtain(one, "new", log)
    assert isinstance(store_of(tmp_path / "three", url).lookup("stage", key_of("new")), Published)


def test_files_of_an_artifact_may_be_called_like_halves_or_versions(url, tmp_path):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    names = ["a", "a.part", "x~1", "x", "~.half-b", "deep/x~2", "l" * 250]
    with one.building("stage", key_of("odd"), print) as building:
        (building.data / "deep").mkdir()
        for name in names:
            (building.data / name).write_text(name)
        made = one.publish(building, one.prepare(building, document("odd"), FACTS, lambda _: {}))
        one.share(made, print, building.team_lease)
    assert len(entries(one)) == 1
    got = two.bring(two.lookup("stage", made.key), print)
    assert {name: (got.data / name).read_text() for name in names} == {name: name for name in names}
    assert got.digest == made.digest and {path.name for path in got.folder.iterdir()} == {
        "data", "logs", "key.json", "manifest.json",
    }  # fmt: skip


def test_nobody_is_waited_for_again_who_did_not_answer_just_now(url, tmp_path, log):
    one = store_of(tmp_path / "one", url)
    mine = obtain(one, "rows", log)
    theirs = obtain(store_of(tmp_path / "other", url), "theirs", log)
    assert isinstance(one.lookup("stage", theirs.key), Published)
    asked, told = [], []

    def gone(*_):
        asked.append("get")
        raise UnreachableError("nobody answers")

    cut = Counting(one.team.objects, asked)
    cut.get = gone
    object.__setattr__(one.team, "objects", cut)
    for name in ("one", "two"):
        with pytest.raises(UnreachableError, match="nobody answers"):
            one.lookup("stage", key_of(name))
        with pytest.raises(UnreachableError), one.building("stage", key_of(name), print):
            pass
    one.team.notes.forget_sent(mine.stage, mine.key)
    one.share(mine, told.append)
    assert asked == ["get"] and "the next run sends it" in told[-1]
    # A look goes on with what is known here, and says so.
    forgiving = one.forgiving(told.append)
    assert isinstance(forgiving.lookup("stage", key_of("two")), Absent) and told[-1] == "nobody answers"
    assert forgiving.lookup("stage", mine.key) == mine
    assert forgiving.lookup("stage", theirs.key).elsewhere
    forgiving.team.look_ahead([("stage", key_of(f"n{number}")) for number in range(20)])
    assert asked == ["get"]


def test_a_look_needs_no_right_to_write(url, tmp_path, log):
    one, two = store_of(tmp_path / "one", url), store_of(tmp_path / "two", url)
    mine = obtain(one, "rows", log)
    # What no root may write either: a file where a folder would be.
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "elsewhere").touch()
    seen = two.lookup("stage", mine.key)
    assert (
        seen.elsewhere and seen.digest == mine.digest and json.loads((seen.folder / "key.json").read_text())
    )
    assert two.lookup("stage", mine.key) == seen
    with pytest.raises(OSError, match=r"elsewhere"):
        two.bring(seen, print)


def test_a_folder_that_is_not_mounted_is_not_taken_for_an_empty_store(tmp_path, log):
    for name in ("shared", "away"):
        (tmp_path / name).mkdir()
    url = f"file://{tmp_path / 'shared'}"
    obtain(store_of(tmp_path / "one", url), "rows", log)
    (tmp_path / "shared").rename(tmp_path / "away" / "shared")
    (tmp_path / "shared").mkdir()
    with pytest.raises(StoreError, match="mount what is in it"):
        store_of(tmp_path / "one", url)
    store_of(tmp_path / "two", url)
