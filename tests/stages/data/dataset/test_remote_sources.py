"""Objects behind URLs: a real S3 server, a real web server, and fsspec's memory in place of other stores."""

import gzip
import json

import datasets
import pytest
from support.object_store import web_server
from support.rows import files_of, read_arrow, run_stage

from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.errors import RowError, SourceError


def lines(*numbers):
    return "".join(json.dumps({"n": n}) + "\n" for n in numbers).encode()


def load(url, out, **config):
    return run_stage(DATASET, DatasetConfig(path=url, **config), out)


def numbers(dataset):
    return [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)]


def places(dataset):
    return [(row["file"], row["line"]) for row in read_arrow(dataset.rows)]


def test_an_object_of_s3_is_the_same_dataset_as_the_file(tmp_path, s3):
    url = s3.put("one/rows.jsonl.gz", gzip.compress(lines(1, 2, 3)))
    dataset, events = load(url, tmp_path / "out", split="train[1:]")
    assert numbers(dataset) == [2, 3]
    assert events.summary == {"rows": 2, "source": "s3"}
    file = tmp_path / "rows.jsonl"
    file.write_bytes(lines(1, 2, 3))
    assert files_of(dataset) == files_of(load(str(file), tmp_path / "file", split="train[1:]")[0])


def test_a_folder_of_s3(tmp_path, s3):
    s3.put("folder/b.jsonl", lines(3))
    s3.put("folder/a.jsonl", lines(1, 2))
    s3.put("folder/deep/c.jsonl", lines(4))
    for url in (s3.url("folder"), s3.url("folder/")):
        dataset, _ = load(url, tmp_path / str(len(url)))
        assert places(dataset) == [("a.jsonl", 1), ("a.jsonl", 2), ("b.jsonl", 1), ("deep/c.jsonl", 1)]
    listed, _ = load(s3.url("folder"), tmp_path / "listed", data_files=["b.jsonl", "deep/c.jsonl"])
    assert places(listed) == [("b.jsonl", 1), ("c.jsonl", 1)]


def test_a_pattern_of_s3(tmp_path, s3):
    s3.put("pattern/x1.jsonl", lines(1))
    s3.put("pattern/x2.jsonl", lines(2))
    s3.put("pattern/y.csv", b"n\n3\n")
    dataset, _ = load(s3.url("pattern/x*.jsonl"), tmp_path / "out")
    assert numbers(dataset) == [1, 2]
    assert places(dataset) == [("x1.jsonl", 1), ("x2.jsonl", 1)]
    mixed = [s3.url("pattern/x*.jsonl"), s3.put("other/z.jsonl", lines(7))]
    dataset, _ = run_stage(DATASET, DatasetConfig(path="json", data_files=mixed), tmp_path / "mixed")
    assert places(dataset) == [("x*.jsonl/x1.jsonl", 1), ("x*.jsonl/x2.jsonl", 1), ("z.jsonl", 1)]


def test_a_saved_dataset_on_s3(tmp_path, s3):
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_dict({"n": [1, 2]}), "test": datasets.Dataset.from_dict({"n": [3]})}
    )
    saved.save_to_disk(str(tmp_path / "saved"))
    for file in (tmp_path / "saved").rglob("*"):
        if file.is_file():
            s3.put(f"saved/{file.relative_to(tmp_path / 'saved')}", file.read_bytes())
    dataset, events = load(s3.url("saved"), tmp_path / "out", split="test")
    assert numbers(dataset) == [3]
    assert events.summary["source"] == "s3"


def test_what_is_not_on_s3(tmp_path, s3):
    with pytest.raises(SourceError, match=r"s3://rows/none\.jsonl: there is nothing"):
        load(s3.url("none.jsonl"), tmp_path / "object")
    with pytest.raises(SourceError, match=r"s3://nowhere/rows\.jsonl: there is nothing"):
        load("s3://nowhere/rows.jsonl", tmp_path / "bucket")


def test_s3_without_credentials(tmp_path, s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(
        SourceError, match=r"s3://rows/x\.jsonl: cannot be read: Unable to locate credentials"
    ):
        load(s3.url("x.jsonl"), tmp_path / "out")


def test_s3_that_cannot_be_reached(tmp_path, s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SourceError, match=r"s3://rows/x\.jsonl: cannot be read: Could not connect"):
        load(s3.url("x.jsonl"), tmp_path / "out")


def test_bad_rows_of_an_object_name_it(tmp_path, s3):
    url = s3.put("bad.jsonl", b'{"n":1}\noops\n')
    with pytest.raises(RowError, match=r"bad\.jsonl:2: invalid JSON"):
        load(url, tmp_path / "out")


def test_a_damaged_object_is_named_by_its_url(tmp_path, s3):
    url = s3.put("cut.jsonl.gz", gzip.compress(lines(*range(1000)))[:500])
    with pytest.raises(
        SourceError, match=r"s3://rows/cut\.jsonl\.gz: not a file of JSON rows, or a damaged one"
    ):
        load(url, tmp_path / "out")


def test_a_file_of_the_web(tmp_path):
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "rows.jsonl").write_bytes(lines(1))
    (tmp_path / "web" / "download").write_bytes(lines(5))
    with web_server(tmp_path / "web") as url:
        dataset, events = load(f"{url}/rows.jsonl?download=true", tmp_path / "out")
        assert numbers(dataset) == [1]
        assert places(dataset) == [("", 1)]
        assert events.summary["source"] == "http"
        assert numbers(load(f"{url}/download", tmp_path / "typed", ds_type="json")[0]) == [5]
        with pytest.raises(SourceError, match="set ds_type: json"):
            load(f"{url}/download", tmp_path / "untyped")
        with pytest.raises(SourceError, match=r"/none\.jsonl: there is nothing"):
            load(f"{url}/none.jsonl", tmp_path / "none")
    with pytest.raises(SourceError, match=r"/rows\.jsonl: cannot be read: .*onnect"):
        load(f"{url}/rows.jsonl", tmp_path / "gone")


def test_a_store_that_fsspec_knows(tmp_path, memory):
    memory.pipe("/bucket/train/a.jsonl", lines(1))
    memory.pipe("/bucket/train/b.jsonl", lines(2))
    memory.pipe("/bucket/test/a.jsonl", lines(3))
    assert numbers(load("memory://bucket/train/b.jsonl", tmp_path / "object")[0]) == [2]
    dataset, events = load("memory://bucket", tmp_path / "folder")
    assert places(dataset) == [("train/a.jsonl", 1), ("train/b.jsonl", 1)]
    assert events.summary == {"rows": 2, "source": "memory"}
    assert numbers(load("memory://bucket", tmp_path / "split", split="test")[0]) == [3]
    assert numbers(load("memory://bucket/*/a.jsonl", tmp_path / "pattern", split="train+test")[0]) == [1, 3]


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("gs://b/x.jsonl", "gcsfs"),
        ("gcs://b/x.jsonl", "gcsfs"),
        ("az://b/x.jsonl", "adlfs"),
        ("abfs://b/x.jsonl", "adlfs"),
        ("adl://b/x.jsonl", "adlfs"),
        ("oci://b/x.jsonl", "ocifs"),
    ],
)
def test_a_package_that_is_not_installed_is_named(tmp_path, url, package):
    with pytest.raises(SourceError, match=f"cannot be read here; it needs a package: pip install {package}"):
        load(url, tmp_path / "out")


def test_a_protocol_that_nobody_knows(tmp_path):
    with pytest.raises(SourceError, match=r"nope://b/x\.jsonl: cannot be read: Protocol not known: nope"):
        load("nope://b/x.jsonl", tmp_path / "out")
