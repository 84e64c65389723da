"""Datasets of the Hub, from a server that speaks its API. huggingface_hub finds it in a process of its own."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.hub import hub_server

TOKEN = "hf_for_tests"  # noqa: S105
# One process reads all: starting one and importing the library takes seconds.
CODE = """
import json, pathlib
from support.rows import read_arrow, run_stage
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.errors import UserError
found = {{}}
for case, config in json.loads({cases!r}).items():
    try:
        dataset, events = run_stage(DATASET, DatasetConfig(**config), pathlib.Path({out!r}) / case)
        rows = [(json.loads(row["row"]), row["line"], row["file"]) for row in read_arrow(dataset.rows)]
        found[case] = {{"rows": rows, "summary": events.summary}}
    except UserError as error:
        found[case] = {{"error": str(error)}}
print(json.dumps(found))
"""
CARD = (
    "---\nconfigs:\n- config_name: a\n  data_files: a.jsonl\n- config_name: b\n  data_files: b.jsonl\n---\n"
)
IMAGES = {"info": {"features": {"image": {"_type": "Image"}, "n": {"dtype": "int64", "_type": "Value"}}}}


def lines(*numbers):
    return "".join(json.dumps({"n": n}) + "\n" for n in numbers).encode()


def parquet(table):
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def images():
    image = pa.array([{"bytes": b"\x89PNG no image", "path": "x.png"}])
    table = pa.table({"image": image, "n": [1]})
    return parquet(table.replace_schema_metadata({"huggingface": json.dumps(IMAGES)}))


REPOSITORIES = {
    "owner/splits": {"train.jsonl": lines(1, 2, 3), "test.jsonl": lines(4, 5), "README.md": b"# rows"},
    "owner/configs": {"a.jsonl": lines(1), "b.jsonl": lines(2), "README.md": CARD.encode()},
    "owner/files": {"a.jsonl": lines(1), "b.jsonl": lines(2), "c.csv": b"n\n3\n"},
    "owner/table": {"train.csv": b"n\n3\n"},
    "owner/scripted": {"scripted.py": b"raise SystemExit('code was run')", "README.md": b""},
    "owner/mixed": {"train.jsonl": b'{"n":1}\n{"n":{"x":[2]}}\n'},
    "owner/broken": {"train.parquet": b"PAR1 no table"},
    "owner/images": {"train.parquet": images()},
    "bare": {"data.jsonl": lines(6)},
}
CASES = {
    "splits": {"path": "owner/splits", "split": "train[1:]+test[:1]"},
    "unset": {"path": "owner/splits"},
    "shard": {"path": "owner/splits", "split": "train[2:]", "shards": 1},
    "no split": {"path": "owner/splits", "split": "validation"},
    "revision": {"path": "owner/revisions", "revision": "v1"},
    "no revision": {"path": "owner/revisions", "revision": "v9"},
    "configuration": {"path": "owner/configs", "name": "b"},
    "no configuration": {"path": "owner/files", "name": "other"},
    "files": {"path": "owner/files", "data_files": ["b.jsonl", "a.jsonl"], "ds_type": "json"},
    "no file": {"path": "owner/files", "data_files": ["x.jsonl"]},
    "kind": {"path": "owner/table", "ds_type": "json"},
    "private": {"path": "owner/private", "hf_use_auth_token": True},
    "private without token": {"path": "owner/private", "hf_use_auth_token": False},
    "script": {"path": "owner/scripted", "trust_remote_code": True},
    "mixed": {"path": "owner/mixed"},
    "broken": {"path": "owner/broken"},
    "images": {"path": "owner/images"},
    "bare": {"path": "bare"},
    "none": {"path": "owner/none"},
}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        for name, files in REPOSITORIES.items():
            server.repository(name).commit(files)
        server.rename("bare", "owner/bare")
        server.repository("owner/revisions").commit({"train.parquet": parquet(pa.table({"n": [1]}))}, "v1")
        server.repository("owner/revisions").commit({"train.parquet": parquet(pa.table({"n": [2]}))})
        server.repository("owner/private", token=TOKEN).commit({"train.jsonl": lines(7)})
        yield server


def load(hub, folder, cases, **environment):
    named = {case: {**config, "path": f"hf://datasets/{config['path']}"} for case, config in cases.items()}
    done = hub.run(folder, CODE.format(cases=json.dumps(named), out=str(folder / "out")), **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(hub, tmp_path_factory):
    return load(hub, tmp_path_factory.mktemp("hub"), CASES, HF_TOKEN=TOKEN)


def test_splits_and_the_commit(hub, found):
    assert found["splits"]["rows"] == [[{"n": 2}, 2, "train"], [{"n": 3}, 3, "train"], [{"n": 4}, 1, "test"]]
    commit = hub.repositories["owner/splits"].revisions["main"]
    assert found["splits"]["summary"] == {"rows": 3, "source": "Hub dataset", "commit": commit}


def test_a_revision_is_a_commit(hub, found):
    assert found["revision"]["rows"] == [[{"n": 1}, 1, ""]]
    assert found["revision"]["summary"]["commit"] == hub.repositories["owner/revisions"].revisions["v1"]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("unset", [1, 2, 3]),
        ("shard", [3]),
        ("configuration", [2]),
        ("files", [2, 1]),
        ("private", [7]),
        ("mixed", [1, {"x": [2]}]),
        ("bare", [6]),
    ],
)
def test_rows(found, case, expected):
    assert "rows" in found[case], found[case]
    assert [row["n"] for row, _, _ in found[case]["rows"]] == expected


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no split", "has no split 'validation', only train, test"),
        ("no revision", "owner/revisions: cannot be found on the Hub: "),
        ("no configuration", "owner/files: cannot be loaded: BuilderConfig 'other' not found"),
        ("no file", "owner/files: cannot be loaded: "),
        ("kind", "ds_type: json, but owner/table holds csv files; remove ds_type"),
        ("private without token", "owner/private: cannot be found on the Hub: "),
        ("script", "come from a script in the repository, and no code of a repository is run, whatever"),
        ("broken", "owner/broken: cannot be loaded: "),
        (
            "images",
            "owner/images, row 1: column 'image' cannot be written as JSON: a value of bytes has no form",
        ),
        ("none", "owner/none: cannot be found on the Hub: "),
    ],
)
def test_errors(found, case, message):
    assert message in found[case].get("error", "no error")


def test_a_token_that_is_demanded(hub, tmp_path):
    cases = {"public": {"path": "owner/table", "hf_use_auth_token": True}}
    assert "Token is required" in load(hub, tmp_path, cases)["public"]["error"]
