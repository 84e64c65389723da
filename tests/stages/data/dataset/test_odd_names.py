"""Folders and files whose names look like patterns, and what systems leave beside data."""

import gzip
import json
import zipfile

import datasets
import pytest
from support.project import make_project
from support.rows import read_arrow, run_stage, write_lines

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.errors import StoreError
from tunemill.resources.remote import identify_remote
from tunemill.stages.data.dataset.config import DatasetConfig
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.sources.names import matches
from tunemill.stages.errors import SourceError

NAMES = ["runs [v2]", "a*b", "x?", "{y}", "[!a]", "**", "a::b", "50%", "#1", "[[]"]


def write(path, *numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_lines(path, [{"n": n} for n in numbers])


def numbers(out, path, **config):
    dataset, _ = run_stage(DATASET, DatasetConfig(path=str(path), **config), out)
    return [json.loads(row["row"])["n"] for row in read_arrow(dataset.rows)]


@pytest.fixture(params=NAMES)
def folder(tmp_path, request):
    """A folder of that name, beside others that it would name as a pattern."""
    for other in ("runs 2", "runs v", "axb", "xy", "y", "b", "["):
        write(tmp_path / other / "rows.jsonl", 9)
    folder = tmp_path / request.param
    write(folder / "one.jsonl", 1)
    write(folder / "two.jsonl", 2)
    return folder


def test_a_folder_is_read_by_its_name(tmp_path, folder):
    assert numbers(tmp_path / "out", folder) == [1, 2]
    assert numbers(tmp_path / "file", folder / "one.jsonl") == [1]


def test_patterns_below_it_are_patterns(tmp_path, folder):
    assert numbers(tmp_path / "out", folder, data_files=[f"{folder}/*.jsonl"]) == [1, 2]
    assert numbers(tmp_path / "deep", folder, data_files=[f"{folder}/**/[t]wo.jsonl"]) == [2]


def test_its_card_is_read(tmp_path, folder):
    card = "configs:\n- config_name: default\n  data_files: two.jsonl\n"
    (folder / "README.md").write_text(f"---\n{card}---\n")
    assert numbers(tmp_path / "out", folder) == [2]


def test_what_save_to_disk_wrote_is_read(tmp_path, folder):
    datasets.Dataset.from_dict({"n": [7]}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved").rename(folder / "saved")
    if "::" in folder.name:
        with pytest.raises(SourceError, match="takes :: for the inside of an archive; rename the folder"):
            numbers(tmp_path / "out", folder / "saved")
        return
    assert numbers(tmp_path / "out", folder / "saved") == [7]


@pytest.mark.parametrize("name", ["[ab].jsonl", "*.jsonl", "?.jsonl", "{a}.jsonl"])
def test_a_file_that_is_there_is_no_pattern(tmp_path, name):
    write(tmp_path / "data" / name, 1)
    write(tmp_path / "data" / "a.jsonl", 2)
    assert numbers(tmp_path / "out", tmp_path / "data", data_files=[f"{tmp_path}/data/{name}"]) == [1]
    assert numbers(tmp_path / "path", tmp_path / "data" / name) == [1]


@pytest.mark.slow
def test_the_whole_command_below_an_odd_name(tmp_path, capsys):
    """The YAML's folder and the state are odd too. A source beside that is cut off is said of without a traceback."""
    project = make_project(tmp_path / "runs [v2]")
    (project.folder / "more {x}").mkdir()
    for name in "ab":
        write_lines(
            project.folder / "more {x}" / f"{name}.jsonl", [{"question": f"1 + {name}", "answer": "2"}]
        )
    content = gzip.compress(rows(*range(5000)))
    (project.folder / "cut.jsonl.gz").write_bytes(content[: len(content) // 2])
    settings = [
        "datasets.0.path='more {x}'",
        'datasets.0.data_files=["*.jsonl"]',
        "datasets.1.path=cut.jsonl.gz",
    ]
    assert main(["check", str(project.yaml), *settings]) == 0
    names = [
        node.name for node in load_pipeline(project.yaml, settings).nodes if node.stage.name == "dataset"
    ]
    only = [argument for name in names[:2] for argument in ("--only", name)]
    assert main(["run", str(project.yaml), *only, *settings, "--state", str(project.state)]) == 1
    said = capsys.readouterr().err
    assert "cut.jsonl.gz: not a file of JSON rows, or a damaged one: Compressed file ended before" in said
    assert "holds no data files" not in said and "Traceback" not in said
    assert len(list((project.state / "artifacts" / "dataset").iterdir())) == 1


def rows(*values):
    return "".join(json.dumps({"n": n}) + "\n" for n in values).encode()


@pytest.mark.parametrize("name", ["runs [v2]", "a*b", "x?", "{y}"])
def test_objects_of_s3(tmp_path, s3, name):
    s3.put(f"{name}/one.jsonl", rows(1))
    s3.put(f"{name}/two.jsonl", rows(2))
    s3.put(f"{name}/deep [v3]/three.jsonl", rows(3))
    for other in ("runs 2", "axb", "xy", "y"):
        s3.put(f"{other}/rows.jsonl", rows(9))
    assert numbers(tmp_path / "folder", s3.url(name)) == [3, 1, 2]
    assert numbers(tmp_path / "object", s3.url(f"{name}/one.jsonl")) == [1]
    assert numbers(tmp_path / "pattern", s3.url(name), data_files=["*.jsonl"]) == [1, 2]
    assert numbers(tmp_path / "deep", s3.url(name), data_files=["deep [v3]/*.jsonl"]) == [3]
    whole = identify_remote(s3.url(f"{name}/*.jsonl"))
    s3.put(f"{name}/two.jsonl", rows(4))
    assert whole["kind"] == "objects" and identify_remote(s3.url(f"{name}/*.jsonl")) != whole


def test_a_remote_pattern_reads_every_file_that_it_names(tmp_path, s3):
    s3.put("every/stories.jsonl", rows(1))
    s3.put("every/latest-eval.jsonl", rows(2))
    assert sorted(numbers(tmp_path / "out", s3.url("every"), data_files=["*.jsonl"])) == [1, 2]


def test_a_pattern_that_names_nothing_in_a_store(memory):
    memory.pipe("/odd [v2]/a.jsonl", rows(1))
    with pytest.raises(StoreError, match="there is nothing"):
        identify_remote("memory://odd [v2]/*.csv")


LITTER = [
    "__MACOSX/._rows.jsonl", "__MACOSX/deep/._rows.jsonl", ".DS_Store", "deep/.DS_Store", "._rows.jsonl", "Thumbs.db",
    "desktop.ini",
]  # fmt: skip


def test_an_archive_with_what_macos_puts_beside_data(tmp_path):
    source = tmp_path / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.mkdir("deep")
        archive.writestr("deep/rows.jsonl", rows(1, 2))
        for name in LITTER:
            archive.writestr(name, b"\0\5\x16\7")
    assert numbers(tmp_path / "out", source) == [1, 2]


def test_a_member_whose_name_looks_like_a_pattern(tmp_path):
    source = tmp_path / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("runs [v2]/*.jsonl", rows(1))
    assert numbers(tmp_path / "out", source) == [1]


def test_a_folder_with_what_systems_leave_in_it(tmp_path):
    folder = tmp_path / "data"
    write(folder / "rows.jsonl", 1)
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    assert numbers(tmp_path / "out", folder) == [1]
    assert numbers(tmp_path / "pattern", folder, data_files=[f"{folder}/[!.]*"], ds_type="json") == [1]
    assert matches(f"{folder}/_*/*") == [f"{folder}/_*/*"], "litter is named by no pattern"
    (folder / "part-0").write_bytes(rows(2))
    (folder / "rows.jsonl").unlink()
    assert numbers(tmp_path / "untyped", folder, ds_type="json") == [2]


ZIPS = {
    "several": ({"a.jsonl": b"{}", "b.jsonl": b"{}"}, r"a zip of 2 files; unpack .* \(it holds a\.jsonl, b\.jsonl\)"),
    "nothing": ({}, "a zip of 0 files"),
    "litter alone": ({".DS_Store": b"x"}, "a zip of nothing but what systems put beside files"),
}  # fmt: skip


def test_a_zip_whose_names_are_not_utf_8(tmp_path, capsys):
    project = make_project(tmp_path / "project")
    source = project.folder / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("é.jsonl", rows(1))
    source.write_bytes(source.read_bytes().replace("é".encode(), b"\xff\xff"))
    with pytest.raises(SourceError, match="or a damaged one: 'utf-8' codec can't decode"):
        numbers(tmp_path / "out", source)
    assert main(["check", str(project.yaml), "datasets.0.path=rows.jsonl.zip"]) == 1
    assert "a zip that is damaged or cut off: 'utf-8' codec" in capsys.readouterr().err


@pytest.mark.parametrize("name", ZIPS)
def test_a_zip_that_cannot_be_read_fails_in_check(tmp_path, capsys, name):
    members, message = ZIPS[name]
    project = make_project(tmp_path / "project")
    source = project.folder / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(SourceError, match=message):
        numbers(tmp_path / "out", source)
    assert main(["check", str(project.yaml), "datasets.0.path=rows.jsonl.zip"]) == 1
    assert message.split(" unpack")[0] in capsys.readouterr().err


def test_a_zip_with_a_password(tmp_path):
    """The bit that says so, and bytes that nobody can read: no library here writes such a zip."""
    source = tmp_path / "rows.jsonl.zip"
    with zipfile.ZipFile(source, "w") as archive:
        archive.writestr("rows.jsonl", rows(1))
    content = bytearray(source.read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(mark) + offset] |= 1
    source.write_bytes(content)
    with pytest.raises(
        SourceError, match=r"rows\.jsonl\.zip: a zip with a password; unpack it and name the file"
    ):
        numbers(tmp_path / "out", source)
