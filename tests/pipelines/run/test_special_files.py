"""What is no regular file or folder is refused by name, unopened; names that cannot be are refused by `check`."""

import os
import shutil
import signal
import socket
import stat
import zipfile
from pathlib import Path

import pytest
import yaml
from support.project import CONFIG, Project, make_project

from tunemill.pipelines.cli import main
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.errors import StoreError
from tunemill.resources.folders import read_json
from tunemill.resources.identity import StatCache, identify, source_files
from tunemill.resources.local import LONGEST_NAME
from tunemill.stages.data.sources.fetch import fetch
from tunemill.stages.data.sources.files import row_file
from tunemill.stages.errors import SourceError
from tunemill.stages.report import Report

SECONDS = 60
LONG = "x" * 300


@pytest.fixture(autouse=True)
def nobody_waits():
    """Whoever opens a pipe waits for ever."""

    def give_up(*_):
        raise TimeoutError("it waits for a file that does not end")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Project:
    """A project with files of every kind in it, that nobody may open."""
    project = make_project(tmp_path_factory.mktemp("odd") / "project")
    folder = project.folder
    os.mkfifo(folder / "fifo")
    for name in ("fifo.jsonl", "fifo.py", "fifo.jinja"):
        os.mkfifo(folder / name)
    for name, target in {
        "link.jsonl": "fifo.jsonl", "zero.jsonl": "/dev/zero", "kernel.jsonl": "/proc/kmsg", "loop.jsonl": "loop.jsonl",
        "loop": "loop", "kernel.py": "/proc/kmsg",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    with socket.socket(socket.AF_UNIX) as bound:
        # The name of a socket may have 107 bytes.
        here = Path.cwd()
        os.chdir(folder)
        bound.bind("socket.jsonl")
        os.chdir(here)
    shutil.copytree(folder / "model", folder / "model_with_pipe")
    os.mkfifo(folder / "model_with_pipe" / "model.safetensors")
    return project


def said(project: Project, capsys, command: str, **keys) -> str:
    """What is said of the config, with nothing but one message."""
    file = project.folder / "tried.yml"
    file.write_text(yaml.safe_dump({**CONFIG, **keys}))
    state = [] if command == "check" else ["--state", str(project.state)]
    code = main([command, str(file), *state])
    said = capsys.readouterr()
    assert code == (1 if said.err else 0)
    # The message, the line at fault and the marks below it.
    assert len(said.err.splitlines()) in (0, 1, 3)
    return said.err.replace(str(project.folder), "HERE")


def entry(**keys):
    return {"datasets": [{"path": "data/sums.jsonl", "type": "chat_template", **keys}]}


REFUSED = [
    (entry(path="fifo.jsonl"), "datasets[0].path: HERE/fifo.jsonl: it is no regular file but a named pipe"),
    (entry(path="fifo"), "HERE/fifo: it is no regular file but a named pipe"),
    (entry(path="link.jsonl"), "a named pipe"),
    (entry(path="socket.jsonl"), "a socket"),
    (entry(path="zero.jsonl"), "a character device"),
    (entry(path="/dev/zero"), "/dev/zero: it is no regular file but a character device"),
    (entry(path="/dev/fd/0"), "it is"),
    (entry(path="kernel.jsonl"), "made up by the kernel"),
    (entry(path="/proc/self/fd/99"), "made up by the kernel"),
    (entry(path="/proc"), "made up by the kernel"),
    (entry(path="loop"), "leads in a circle"),
    (entry(path="loop.jsonl"), "leads in a circle"),
    (entry(path=LONG), "longer than 255 bytes"),
    (entry(path=f"{LONG}.jsonl"), "longer than 255 bytes"),
    (entry(path=f"{'é' * 130}.jsonl"), "longer than 255 bytes"),
    (entry(path="a/" * 2500 + "x.jsonl"), "longer than the 4095 bytes"),
    (entry(path="data/a\nb.jsonl"), "HERE/data/a\\nb.jsonl: its name has a line break"),
    (entry(path="https://host/a\nb.jsonl"), "its name has a line break"),
    (entry(path="json", data_files="fifo.jsonl"), "datasets[0].data_files: HERE/fifo.jsonl"),
    (entry(path="json", data_files="*.jsonl"), "; and 5 more cannot be read"),
    (entry(path="json", data_files=["zero.jsonl"]), "datasets[0].data_files: /dev/zero"),
    (entry(path="json", data_files=f"{LONG}*"), "longer than 255 bytes"),
    (entry(type="fifo.function"), "datasets[0].type: HERE/fifo.py: it is no regular file but a named pipe"),
    (entry(type="kernel.function"), "datasets[0].type: HERE/kernel.py: it is made up by the kernel"),
    ({"test_datasets": [{"path": "fifo.jsonl", "type": "alpaca"}]}, "test_datasets[0].path: HERE/fifo.jsonl"),
    ({"base_model": "/dev/zero"}, "base_model: /dev/zero: it is no regular file"),
    ({"base_model": LONG}, "longer than 255 bytes"),
    ({"tokenizer_config": "fifo"}, "tokenizer_config: HERE/fifo: it is no regular file but a named pipe"),
    ({"chat_template": "jinja", "chat_template_jinja": "fifo.jinja"}, "a named pipe"),
    ({"chat_template": "jinja", "chat_template_jinja": "/dev/zero"}, "a character device"),
    ({"output_dir": LONG}, "output_dir: the folder of links to results"),
    ({"output_dir": "a/" * 2020}, "longer than the 4095 bytes"),
    ({"output_dir": "a\nb"}, "line break"),
    ({"dataset_prepared_path": LONG}, "dataset_prepared_path: the folder of links to results"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "message"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_check_can_know(odd, capsys, keys, message):
    assert message in said(odd, capsys, "check", **keys)


def test_names_that_look_odd_and_are_right(odd, capsys):
    long = "é" * 120 + ".jsonl"
    shutil.copy(odd.folder / "data" / "sums.jsonl", odd.folder / long)
    for path in ("data/sums.jsonl/", "../project/data", "data", long):
        assert said(odd, capsys, "check", **entry(path=path)) == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: os.mkfifo(folder / "b.jsonl"), "b.jsonl: it is no regular file but a named pipe"),
        (lambda folder: (folder / "b.jsonl").symlink_to("/dev/zero"), "b.jsonl: it is no regular file but a character"),
        (lambda folder: (folder / "b.jsonl").symlink_to("/proc/kmsg"), "b.jsonl: it is made up by the kernel"),
        (lambda folder: (folder / "b.jsonl").symlink_to("nowhere"), "b.jsonl: it is a link to nowhere"),
        (lambda folder: (folder / "b.jsonl").symlink_to("b.jsonl"), "b.jsonl: it is a link that leads in a circle"),
        (lambda folder: (folder / os.fsdecode(b"b\xff.jsonl")).write_text(""), "its name is not UTF-8"),
        (lambda folder: [(folder / name).symlink_to(".") for name in "xy"], "it is a link to a folder around it"),
        (lambda folder: [(folder / name).symlink_to("..") for name in "xy"], "it is a link to a folder around it"),
    ],
)  # fmt: skip
def test_what_lies_in_a_folder(tmp_path, make, message):
    folder = tmp_path / "around" / "folder"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text("{}\n")
    make(folder)
    with pytest.raises(StoreError, match=message):
        identify(folder, StatCache(tmp_path / "stat.sqlite"))


def test_two_links_to_one_folder_are_no_circle(tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a").write_text("a")
    (tmp_path / "folder").mkdir()
    for name in "xy":
        (tmp_path / "folder" / name).symlink_to("../others")
    os.mkfifo(tmp_path / "folder" / ".hidden")
    found = {path.relative_to(tmp_path).as_posix() for path in source_files(tmp_path / "folder")}
    assert found == {"folder/x/a", "folder/y/a"}


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    (tmp_path / "folder" / "locked").mkdir(parents=True)
    listdir = os.listdir

    def deny(place):
        if Path(place).name == "locked":
            raise PermissionError(13, "Permission denied", str(place))
        return listdir(place)

    monkeypatch.setattr(os, "listdir", deny)
    with pytest.raises(StoreError, match="locked: Permission denied"):
        identify(tmp_path / "folder", StatCache(tmp_path / "stat.sqlite"))


def test_a_pipe_in_a_models_folder(odd, capsys):
    message = said(odd, capsys, "plan", base_model="model_with_pipe")
    assert "base_model: HERE/model_with_pipe/model.safetensors: it is no regular file" in message
    assert "Hub" not in message


@pytest.mark.parametrize("command", ["check", "plan", "run", "preprocess"])
@pytest.mark.parametrize("name", ["fifo", "zero.jsonl", "/dev/stdin", "loop", LONG])
def test_a_pipeline_that_is_no_file(odd, command, name, capsys):
    state = [] if command == "check" else ["--state", str(odd.state)]
    assert main([command, str(odd.folder / name), *state]) == 1
    said = capsys.readouterr().err
    assert (len(said.splitlines()) == 1 and "cannot be read: it" in said) or "a part of it" in said


@pytest.mark.parametrize("name", ["fifo", "loop", LONG, "a\nb", "a/" * 1800])
def test_a_state_that_cannot_be(odd, name, capsys):
    assert main(["plan", str(odd.yaml), "--state", str(odd.folder / name)]) == 1
    assert capsys.readouterr().err.startswith("the state folder: ")


def test_long_names_are_short_and_stay_apart(odd):
    alike = ["s" * 249, "s" * 248 + "t"]
    entries = [{"path": f"data/{stem}.jsonl", "type": "chat_template"} for stem in alike]
    names = []
    for stem in ("é" * 125, "é" * 124 + "è", "z" * 251):
        file = odd.folder / f"{stem}.yml"
        file.write_text(yaml.safe_dump({**CONFIG, "datasets": entries}))
        pipeline = load_pipeline(file)
        file.unlink()
        names.append(pipeline.name)
        assert len({node.name for node in pipeline.nodes}) == len(pipeline.nodes)
        assert max(len(node.name) for node in pipeline.nodes) <= len("tokenized_") + LONGEST_NAME
    assert len(set(names)) == 3 and max(map(len, names)) <= LONGEST_NAME


@pytest.mark.slow
def test_a_pipeline_with_the_longest_names_runs(fresh_project, capsys):
    data = fresh_project.folder / "data"
    for name, stem in {"sums": "s" * 249, "echoes": "s" * 248 + "t"}.items():
        (data / f"{name}.jsonl").rename(data / f"{stem}.jsonl")
    fresh_project.edit(
        datasets=[{"path": f"data/{'s' * 249}.jsonl", "type": "chat_template"},
                  {"path": f"data/{'s' * 248}t.jsonl", "type": "chat_template"}]
    )  # fmt: skip
    file = fresh_project.yaml.rename(fresh_project.folder / f"{'é' * 125}.yml")
    target = fresh_project.folder / f"{'e' * 247}.parquet"
    arguments = [str(file), "--state", str(fresh_project.state), "--export", str(target)]
    assert main(["preprocess", *arguments]) == 0, capsys.readouterr().err
    assert target.is_file()


def test_a_zip_of_something_else(tmp_path):
    def rows(member: zipfile.ZipInfo, content: str) -> str:
        file = tmp_path / "rows.jsonl.zip"
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(member, content)
        return file

    link = zipfile.ZipInfo("rows.jsonl")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    locked = rows(zipfile.ZipInfo("rows.jsonl"), "{}\n")
    content = bytearray(locked.read_bytes())
    for start in (b"PK\x03\x04", b"PK\x01\x02"):
        content[content.index(start) + (6 if start == b"PK\x03\x04" else 8)] |= 1
    for file, message in ((rows(link, "/etc/passwd"), "a zip of a link"), (content, "a zip with a password")):
        place = tmp_path / "rows.jsonl.zip"
        if isinstance(file, bytearray):
            place.write_bytes(file)
        with pytest.raises(SourceError, match=message):
            list(row_file(place, "json", "", "rows", "rows", tmp_path).read(0))


def test_objects_that_can_be_no_files(tmp_path):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe(f"/odd/{'x' * 300}.jsonl", b"{}\n")
    report = Report(lambda _: None)
    assert fetch(f"memory://odd/{'x' * 300}.jsonl", tmp_path / "one", report).is_file()
    memory.pipe("/odd/a.jsonl", b"{}\n")
    with pytest.raises(SourceError, match=r"memory://odd: holds 'xxx.*can be no file; rename it there"):
        fetch("memory://odd", tmp_path / "several", report)
    memory.rm("/odd", recursive=True)
    memory.store["/odd/../../up.jsonl"] = memory.store.get(
        "/odd/a.jsonl"
    ) or fsspec.implementations.memory.MemoryFile(memory, "/odd/../../up.jsonl", b"{}\n")
    memory.pipe("/odd/b.jsonl", b"{}\n")
    with pytest.raises(SourceError, match=r"holds '\.\./\.\./up\.jsonl'"):
        fetch("memory://odd", tmp_path / "deep" / "several", report)
    assert not (tmp_path / "up.jsonl").exists()
    memory.store.clear()


def test_what_the_store_reads_is_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    assert read_json(tmp_path / "manifest.json") is None
