"""The identity of what lies elsewhere: it moves when the content moves, and only then."""

import json
import os
import subprocess
import sys

import pytest
from support.hub import hub_server
from support.object_store import web_server

from tunemill.resources.errors import StoreError
from tunemill.resources.remote import describe_identity, identify_remote

TOKEN = "hf_for_tests"  # noqa: S105
HUB_CODE = """
import json
from tunemill.resources.errors import StoreError
from tunemill.resources.remote import hub_repository
try:
    print(json.dumps({{"kind": "hub", "commit": hub_repository({url!r}, {revision!r})[0]}}))
except StoreError as error:
    print(json.dumps(str(error)))
"""


@pytest.fixture
def hub():
    with hub_server() as running:
        yield running


def ask_hub(hub, tmp_path, name, revision=None, **environment):
    code = HUB_CODE.format(url=f"hf://datasets/{name}", revision=revision)
    done = hub.run(tmp_path, code, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_object_of_s3(s3):
    url = s3.put("a.jsonl", b"one")
    first = identify_remote(url)
    assert first == identify_remote(url)
    assert first["kind"] == "object"
    assert identify_remote(s3.put("copy.jsonl", b"one")) == first
    s3.put("a.jsonl", b"two")
    assert identify_remote(url) != first
    s3.put("a.jsonl", b"one")
    assert identify_remote(url) == first


def test_a_folder_of_s3(s3):
    for name in ("f/a", "f/deep/b"):
        s3.put(name, b"one")
        s3.put(name.replace("f", "g", 1), b"one")
    first = identify_remote(s3.url("f"))
    assert first["kind"] == "objects"
    assert identify_remote(s3.url("f/")) == first
    assert identify_remote(s3.url("g")) == first
    s3.put("f/deep/b", b"two")
    changed = identify_remote(s3.url("f"))
    s3.put("f/c", b"")
    grown = identify_remote(s3.url("f"))
    s3.remove("f/c")
    s3.put("f/deep/b", b"one")
    assert len({item["sha256"] for item in (first, changed, grown)}) == 3
    assert identify_remote(s3.url("f")) == first


def test_a_pattern_of_s3(s3):
    s3.put("p/a1", b"one")
    s3.put("p/b1", b"one")
    first = identify_remote(s3.url("p/a*"))
    s3.put("p/b1", b"two")
    assert identify_remote(s3.url("p/a*")) == first
    s3.put("p/a2", b"two")
    assert identify_remote(s3.url("p/a*")) != first


@pytest.mark.parametrize("name", ["none", "none/x*.jsonl"])
def test_what_is_not_on_s3(s3, name):
    with pytest.raises(StoreError, match="there is nothing"):
        identify_remote(s3.url(name))


def test_s3_without_credentials(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreError, match=r"cannot be looked at: Unable to locate credentials"):
        identify_remote(s3.url("a.jsonl"))


@pytest.mark.parametrize("told", ["ETag", "Last-Modified"])
def test_a_file_of_the_web(tmp_path, told):
    file = tmp_path / "rows.jsonl"
    file.write_text("one")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    with web_server(tmp_path, told) as url:
        first = identify_remote(f"{url}/rows.jsonl")
        for same in ("rows.jsonl?token=abc", "rows.jsonl?X-Amz-Signature=abc&Expires=1", "rows.jsonl#part"):
            assert identify_remote(f"{url}/{same}") == first
        # A server may mark everything that a path answers alike.
        asked = identify_remote(f"{url}/rows.jsonl?part=1&token=abc")
        assert asked == identify_remote(f"{url}/rows.jsonl?token=def&part=1") != first
        assert asked != identify_remote(f"{url}/rows.jsonl?part=2")
        os.utime(file, (1_000_000_009, 1_000_000_009))
        second = identify_remote(f"{url}/rows.jsonl")
        file.write_text("longer")
        os.utime(file, (1_000_000_009, 1_000_000_009))
        third = identify_remote(f"{url}/rows.jsonl")
    assert len({item["checksum"] for item in (first, second, third)}) == 3


def test_a_server_that_says_nothing_is_never_the_same_twice(tmp_path):
    (tmp_path / "rows.jsonl").write_text("one")
    with web_server(tmp_path) as url:
        first, second = (identify_remote(f"{url}/rows.jsonl") for _ in range(2))
    assert first["kind"] == second["kind"] == "unidentified"
    assert first != second
    assert "made anew in every run" in describe_identity(first)


def test_what_is_not_on_the_web(tmp_path):
    with web_server(tmp_path) as url, pytest.raises(StoreError, match=r"/none\.jsonl: there is nothing"):
        identify_remote(f"{url}/none.jsonl")
    with pytest.raises(StoreError, match=r"there is nothing: .*onnect"):
        identify_remote(f"{url}/none.jsonl")


def test_objects_in_memory(memory):
    memory.pipe("/b/a.jsonl", b"one")
    first = identify_remote("memory://b/a.jsonl")
    folder = identify_remote("memory://b")
    memory.pipe("/b/a.jsonl", b"two")
    assert identify_remote("memory://b/a.jsonl") != first
    assert identify_remote("memory://b") != folder


@pytest.mark.parametrize(
    ("url", "package"), [("gs://b/x", "gcsfs"), ("abfs://b/x", "adlfs"), ("oci://b/x", "ocifs")]
)
def test_a_package_that_is_not_installed(url, package):
    with pytest.raises(StoreError, match=f"needs a package: pip install {package}"):
        identify_remote(url)


def test_a_commit_of_the_hub_costs_one_request(hub, tmp_path):
    repository = hub.repository("owner/data")
    old = repository.commit({"a.jsonl": b"1"}, "v1")
    new = repository.commit({"a.jsonl": b"2"})
    assert ask_hub(hub, tmp_path, "owner/data") == {"kind": "hub", "commit": new}
    asked = [request for request in hub.requests if "owner/data" in request]
    assert asked == ["GET /api/datasets/owner/data/revision/main"]
    assert ask_hub(hub, tmp_path, "owner/data", "v1") == {"kind": "hub", "commit": old}
    assert ask_hub(hub, tmp_path, "owner/data", old) == {"kind": "hub", "commit": old}
    assert describe_identity({"kind": "hub", "commit": old}) == f"commit {old}"


def test_what_is_not_on_the_hub(hub, tmp_path):
    hub.repository("owner/data", token=TOKEN).commit({"a.jsonl": b"1"})
    assert "a private one log in: hf auth login" in ask_hub(hub, tmp_path, "owner/data")
    found = ask_hub(hub, tmp_path, "owner/data", HF_TOKEN=TOKEN)
    assert found["kind"] == "hub"
    assert "has no revision 'v9'" in ask_hub(hub, tmp_path, "owner/data", "v9", HF_TOKEN=TOKEN)
    assert "neither a local file or folder nor a dataset" in ask_hub(hub, tmp_path, "owner/none")


def test_a_hub_that_cannot_be_reached(hub, tmp_path):
    answer = ask_hub(hub, tmp_path, "owner/data", HF_ENDPOINT="http://127.0.0.1:9")
    assert answer.startswith("owner/data: is no local file or folder, and the Hub cannot be reached: ")
    offline = ask_hub(hub, tmp_path, "owner/data", HF_HUB_OFFLINE="1")
    assert offline.endswith("the Hub is not asked, because HF_HUB_OFFLINE is set")


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, tunemill.resources.remote;"
        "assert not {'fsspec', 'huggingface_hub', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
