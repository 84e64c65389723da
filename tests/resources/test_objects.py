"""Objects of a shared place: conditions that one writer alone meets, files that arrive whole, listings."""

import errno
import json
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from support.generations import google_server

from tunemill.resources import folder_objects
from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.objects import fault_of_team_url, objects_at

# What matters most is looked at in both, of the rest that of a folder is the fast one.
AZURE = pytest.param("azure", marks=pytest.mark.slow)
EITHER = ["folder", pytest.param("s3", marks=pytest.mark.slow), AZURE]


@pytest.fixture(params=["s3", "folder", AZURE])
def objects(request, tmp_path):
    if request.param == "azure":
        return objects_at(f"{request.getfixturevalue('azure')}/{tmp_path.name}")
    if request.param == "folder":
        (tmp_path / "shared").mkdir()
        return objects_at(f"file://{tmp_path / 'shared'}")
    return objects_at(request.getfixturevalue("s3").url(f"objects/{tmp_path.name}"))


def test_an_object_is_created_once_and_replaced_only_where_it_is_what_was_read(objects):
    first = objects.create("a/b.json", b"1")
    assert first is not None
    assert objects.create("a/b.json", b"2") is None
    assert objects.get("a/b.json").content == b"1"
    second = objects.replace("a/b.json", b"2", first)
    assert objects.get("a/b.json").mark == second
    assert objects.replace("a/b.json", b"3", first) is None
    assert objects.replace("nothing.json", b"3", first) is None
    assert objects.get("a/b.json").content == b"2"
    objects.delete("a/b.json")
    objects.delete("a/b.json")
    assert objects.get("a/b.json") is None


def test_of_many_writers_one_wins_and_no_increment_is_lost(objects):
    def create(number):
        return objects.create("race", b"%d" % number)

    def plus_one(content):
        return f"{int(content.split()[0]) + 1} {uuid.uuid4()}".encode()

    def increment(_):
        for _ in range(3):
            while True:
                now = objects.get("count")
                if objects.replace("count", plus_one(now.content), now.mark) is not None:
                    break

    objects.create("count", b"0")
    with ThreadPoolExecutor(8) as pool:
        assert sum(mark is not None for mark in pool.map(create, range(16))) == 1
        list(pool.map(increment, range(4)))
    assert int(objects.get("count").content.split()[0]) == 12


@pytest.mark.parametrize("objects", EITHER, indirect=True)
def test_files_arrive_whole_and_go_on_where_they_were_cut_off(objects, tmp_path):
    content = bytes(range(256)) * 90_000
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(content)
    objects.send("deep/file", source)
    target.write_bytes(content[:17_000_001])
    objects.fetch("deep/file", target, len(content))
    assert target.read_bytes() == content
    (item,) = objects.listing("deep/")
    assert (item.name, item.bytes) == ("deep/file", len(content))
    with pytest.raises(FileNotFoundError):
        objects.fetch("nothing", tmp_path / "none", 1)


def test_whoever_was_slow_to_create_sees_that_others_were_there(tmp_path, monkeypatch):
    """Between its look and its link others have created, given back and taken."""
    (tmp_path / "shared").mkdir()
    slow, others = (objects_at(f"file://{tmp_path / 'shared'}") for _ in range(2))
    written = folder_objects.fsync

    def meanwhile(path):
        written(path)
        monkeypatch.setattr(folder_objects, "fsync", written)
        mark = others.create("lease", b"1")
        for content in (b"2", b"3"):
            mark = others.replace("lease", content, mark)

    monkeypatch.setattr(folder_objects, "fsync", meanwhile)
    assert slow.create("lease", b"mine") is None
    assert slow.get("lease").content == b"3"
    for content in (b"4", b"5", b"6"):
        assert others.replace("lease", content, others.get("lease").mark) is not None
    assert others.get("lease").content == b"6"
    assert len(list((tmp_path / "shared").iterdir())) == 3


def test_googles_store_is_asked_by_the_number_of_a_version(tmp_path, monkeypatch):
    with google_server() as endpoint:
        account = {"gcs_base_url": endpoint, "disable_oauth": True, "client_email": ""}
        (tmp_path / "account.json").write_text(
            json.dumps({**account, "private_key": "", "private_key_id": ""})
        )
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        objects = objects_at("gs://bucket/team")
        first = objects.create("lease", b"1")
        assert objects.create("lease", b"2") is None
        second = objects.replace("lease", b"2", first)
        assert second == objects.get("lease").mark != first
        assert objects.replace("lease", b"3", first) is None
        assert objects.replace("nothing", b"3", first) is None
        assert objects.get("lease").content == b"2"


def test_an_object_that_was_cut_short_is_no_server_that_is_gone(s3, tmp_path):
    objects = objects_at(s3.url(f"cut/{tmp_path.name}"))
    (tmp_path / "empty").touch()
    objects.send("file", tmp_path / "empty")
    objects.fetch("file", tmp_path / "got", 10)
    assert (tmp_path / "got").read_bytes() == b""


@pytest.mark.parametrize("objects", EITHER, indirect=True)
def test_a_listing_names_each_object_once(objects):
    mark = objects.create("many/one.json", b"1")
    objects.replace("many/one.json", b"22", mark)
    objects.create("many/two.json", b"1")
    objects.create("other/three.json", b"1")
    assert [(item.name, item.bytes) for item in objects.listing("many/")] == [
        ("many/one.json", 2),
        ("many/two.json", 1),
    ]
    assert next(iter(objects.listing("many/"))).mark == objects.get("many/one.json").mark
    assert list(objects.listing("nothing/")) == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("bucket/team", "write a URL"),
        ("sftp://host/team", "cannot be written on a condition"),
        ("s3://key:secret@bucket/team", "leave out who you are"),
        ("s3://", "names no bucket"),
        ("file://mnt/team", "three slashes"),
    ],
)
def test_what_can_be_no_teams_store_is_refused_with_a_reason(url, said):
    assert said in fault_of_team_url(url)
    assert fault_of_team_url("s3://bucket/team") is None


@pytest.mark.usefixtures("s3")
def test_where_nothing_is_it_says_so(tmp_path):
    with pytest.raises(StoreError, match="make it once, or mount"):
        objects_at(f"file://{tmp_path / 'nowhere'}")
    with pytest.raises(StoreError, match="no such bucket"):
        objects_at("s3://no-such-bucket/team").get("a")


@pytest.mark.slow
def test_where_there_is_no_container_it_says_so(azure, tmp_path):
    objects = objects_at(f"{azure}-not/team")
    (tmp_path / "file").write_text("content")
    for ask in (
        lambda: objects.get("a"),
        # Taken for a lease that somebody else has, it would be waited for without end.
        lambda: objects.create("a", b"1"),
        lambda: list(objects.listing("a/")),
        lambda: objects.send("a", tmp_path / "file"),
    ):
        with pytest.raises(StoreError, match="no such bucket"):
            ask()


def test_a_server_that_is_gone_is_named(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with pytest.raises(UnreachableError, match="s3://team/x: cannot be reached") as caught:
        objects_at("s3://team/x").get("a")
    assert "very-secret" not in str(caught.value) and "Debug" not in str(caught.value)


ODD = [
    "x~1",
    "x",
    "x~1~",
    "~x~2",
    ".half-a",
    "~.half-a",
    "a.part",
    "a",
    "50% #1? [x]",
    "ü\u0301 b",
    "back\\slash",
    "*",
]


@pytest.mark.parametrize("objects", EITHER, indirect=True)
def test_files_may_have_any_name(objects, tmp_path):
    (tmp_path / "source").mkdir()
    for name in ODD:
        (tmp_path / "source" / name).write_text(name)
        objects.send(f"place/{name}", tmp_path / "source" / name)
    there = {item.name.removeprefix("place/"): item.bytes for item in objects.listing("place/")}
    # Azure takes a backslash for a slash, wherever it is asked for one.
    slash = "/" if objects.url.startswith("az://") else "\\"
    assert there == {name.replace("\\", slash): len(name.encode()) for name in ODD}
    for number, name in enumerate(ODD):
        assert objects.size(f"place/{name}") == len(name.encode())
        objects.fetch(f"place/{name}", tmp_path / str(number), 1000)
        assert (tmp_path / str(number)).read_text() == name
        objects.delete(f"place/{name}")
    assert list(objects.listing("place/")) == [] and objects.size("place/x") is None


def test_what_was_cut_off_in_a_folder_goes_when_it_is_old(tmp_path):
    (tmp_path / "shared" / "files").mkdir(parents=True)
    objects = objects_at(f"file://{tmp_path / 'shared'}")
    for name, age in ((".half-old", 90_000), (".half-new", 10)):
        (tmp_path / "shared" / "files" / name).write_text("half")
        os.utime(tmp_path / "shared" / "files" / name, (time.time() - age,) * 2)
    objects.sweep(datetime.now(UTC))
    assert [path.name for path in (tmp_path / "shared" / "files").iterdir()] == [".half-new"]


def test_a_file_that_cannot_be_sent_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    (tmp_path / "source").write_text("content")

    def full(_, target):
        target.write_text("con")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(folder_objects.shutil, "copyfile", full)
    with pytest.raises(StoreError, match="takes nothing more") as caught:
        objects_at(f"file://{tmp_path / 'shared'}").send("files/x", tmp_path / "source")
    assert not isinstance(caught.value, UnreachableError)
    assert list((tmp_path / "shared" / "files").iterdir()) == []


def test_a_folder_that_goes_away_is_not_one_without_results(tmp_path):
    (tmp_path / "shared").mkdir()
    objects = objects_at(f"file://{tmp_path / 'shared'}")
    (tmp_path / "shared").rmdir()
    for ask in (
        lambda: objects.get("a"),
        lambda: list(objects.listing("a/")),
        lambda: objects.create("a", b""),
    ):
        with pytest.raises(UnreachableError, match="the folder is gone"):
            ask()
    assert not (tmp_path / "shared").exists()
