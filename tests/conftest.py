"""Fixtures that many tests share."""

import os
import shutil
from collections.abc import Iterator

import fsspec
import pytest
from support.examples import quickstart_once
from support.object_store import reached, s3_server
from support.project import Project, make_project

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# What a command prints in a pipe has its width. `readline`, which pytest imports, sets it behind Python's back.
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")
os.environ.pop("DAGSTER_HOME", None)
os.environ.pop("TUNEMILL_HOME", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """What is exhaustive is slow: whoever leaves the slow tests out means these too."""
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def finished_project(tmp_path_factory) -> Iterator[Project]:
    """A project that has run to its end. Read only: tests take a `project` copy of it."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    finished = project.run()
    assert {item.state for item in finished.values()} == {"computed"}, finished
    before = _pointing(project)
    yield project
    assert _pointing(project) == before, (
        "a test has changed what all others read: let it take `project`, a copy"
    )


def _pointing(project: Project) -> dict[str, str]:
    """Where the links to results and the refs of nodes point."""
    links = {
        str(link): str(link.readlink()) for link in project.folder.glob("outputs/*") if link.is_symlink()
    }
    return links | {str(ref): ref.read_text() for ref in project.state.glob("refs/**/*.json")}


@pytest.fixture
def project(finished_project, tmp_path) -> Project:
    """A project of the test's own, with everything already in its store."""
    shutil.copytree(finished_project.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", tmp_path / "project" / ".tunemill")


@pytest.fixture
def fresh_project(tmp_path) -> Project:
    """A project of the test's own with an empty store."""
    return make_project(tmp_path / "project")


@pytest.fixture(scope="module")
def quickstart_folder(tmp_path_factory):
    """A copy of the examples with a `state` in which the quickstart has run, and `nodes.json`, what it said."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    copy = tmp_path_factory.mktemp("quickstart") / "copy"
    shutil.copytree(quickstart_once(shared), copy, symlinks=True)
    return copy


@pytest.fixture(scope="module")
def s3_of_module():
    """An S3 server that the tests of a module share."""
    with s3_server() as server:
        yield server


@pytest.fixture
def s3(s3_of_module, monkeypatch):
    """An S3 server with a bucket, which s3:// of this process leads to."""
    with reached(s3_of_module, ["s3"], monkeypatch) as server:
        yield server


@pytest.fixture
def memory():
    """The empty store behind memory://."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()
