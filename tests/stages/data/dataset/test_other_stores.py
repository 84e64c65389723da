"""gs://, az:// and oci:// with the real packages, against emulators; skipped where those are not installed."""

import gzip
import json

import pytest
from support.cloud_stores import azure_store, google_store, oracle_store
from support.object_store import reached
from support.rows import read_arrow, run_stage

from tunemill.resources.errors import StoreError
from tunemill.resources.remote import identify_remote
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.errors import SourceError

SCHEMES = {"gs": ("gs", "gcs"), "az": ("az", "abfs", "abfss"), "oci": ("oci",)}


def rows(*numbers):
    return "".join(json.dumps({"n": n}) + "\n" for n in numbers).encode()


@pytest.fixture(scope="module", params=SCHEMES)
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    opened = {"gs": google_store, "az": lambda: azure_store(folder), "oci": lambda: oracle_store(folder)}
    with opened[request.param]() as store:
        yield store


@pytest.fixture
def store(server, monkeypatch):
    with reached(server, SCHEMES[server.scheme], monkeypatch) as store:
        yield store


def read(tmp_path, url, **config):
    dataset, events = run_stage(DATASET, DatasetConfig(path=url, **config), tmp_path)
    places = [(row["file"], json.loads(row["row"])["n"]) for row in read_arrow(dataset.rows)]
    return places, events.summary


def test_one_object_under_every_name_of_the_store(tmp_path, store):
    store.put("one/rows.jsonl.gz", gzip.compress(rows(1, 2, 3)))
    for scheme in SCHEMES[store.scheme]:
        url = store.url("one/rows.jsonl.gz").replace(f"{store.scheme}://", f"{scheme}://")
        places, summary = read(tmp_path / scheme, url, split="train[1:]")
        assert (places, summary) == ([("", 2), ("", 3)], {"rows": 2, "source": scheme})


def test_a_folder_a_pattern_and_a_list(tmp_path, store):
    for name, number in (("b.jsonl", 2), ("a.jsonl", 1), ("deep/c.jsonl", 3), ("d.csv", 4)):
        store.put(f"folder/{name}", rows(number))
    expected = [("a.jsonl", 1), ("b.jsonl", 2), ("deep/c.jsonl", 3)]
    assert read(tmp_path / "folder", store.url("folder"), ds_type="json")[0] == expected
    assert read(tmp_path / "pattern", store.url("folder/?.jsonl"))[0] == expected[:2]
    listed = read(tmp_path / "list", store.url("folder"), data_files=["b.jsonl", "deep/c.jsonl"])[0]
    assert listed == [("b.jsonl", 2), ("c.jsonl", 3)]


@pytest.mark.parametrize("name", ["runs [v2]", "a*b"])
def test_a_folder_whose_name_looks_like_a_pattern(tmp_path, store, name):
    store.put(f"{name}/one.jsonl", rows(1))
    store.put("runs 2/two.jsonl", rows(2))
    store.put("axb/two.jsonl", rows(2))
    assert read(tmp_path / "folder", store.url(name))[0] == [("", 1)]
    assert read(tmp_path / "pattern", store.url(name), data_files=["*.jsonl"])[0] == [("", 1)]


def test_the_identity_is_that_of_the_contents(store):
    store.put("same/a.jsonl", rows(1))
    store.put("same/b.jsonl", rows(2))
    object_before, folder_before = (identify_remote(store.url(name)) for name in ("same/a.jsonl", "same"))
    assert (object_before["kind"], folder_before["kind"]) == ("object", "objects")
    assert identify_remote(store.url("same/a.jsonl")) == object_before
    store.put("same/a.jsonl", rows(3))
    assert identify_remote(store.url("same/a.jsonl")) != object_before
    assert identify_remote(store.url("same")) != folder_before


def test_a_pattern_at_the_top_of_a_bucket(tmp_path, store):
    store.put("top-1.jsonl", rows(1))
    store.put("top-2.jsonl", rows(2))
    assert read(tmp_path, store.url("top-*.jsonl"))[0] == [("top-1.jsonl", 1), ("top-2.jsonl", 2)]
    assert identify_remote(store.url("top-?.jsonl"))["kind"] == "objects"


def test_a_whole_bucket(tmp_path, store):
    store.put("whole.jsonl", rows(7))
    url = store.url("").rstrip("/")
    assert identify_remote(url)["kind"] == "objects"
    assert ("whole.jsonl", 7) in read(tmp_path, url, ds_type="json")[0]


def test_what_is_not_there(tmp_path, store):
    with pytest.raises(SourceError, match=r"none\.jsonl: there is nothing"):
        read(tmp_path, store.url("none.jsonl"))
    with pytest.raises(StoreError, match=r"none\.jsonl: there is nothing"):
        identify_remote(store.url("none.jsonl"))
