"""`push_dataset_to_hub`: prepared rows are pushed once, and pulled where they would be prepared again."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from support.hub import hub_server
from support.object_store import s3_server
from support.project import Project, make_project, nodes_in_state
from support.rows import read_arrow

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.resources.canonical import hash_document
from tunemill.resources.folders import remove_tree

NAME, TOKEN, READER = "team/prepared", "hf_who_may_write", "hf_who_may_read"
SUMS = [{"path": "data/sums.jsonl", "type": "chat_template"}]
ROWS = {"tokenized_sums", "training_data"}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        server.writers.add(TOKEN)
        yield server


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A project whose data is prepared, and nothing pushed."""
    folder = tmp_path_factory.mktemp("prepared") / "project"
    project = make_project(folder, datasets=SUMS, test_datasets=None, push_dataset_to_hub=False)
    assert nodes_in_state(project.run(only={"training_data"}), "computed") >= ROWS
    return project


def machine(prepared, folder, place, *, has_rows):
    """The prepared project in another folder; without its rows it is one that has only read the source."""
    shutil.copytree(prepared.folder, folder / "project")
    project = Project(folder / "project", folder / "project" / ".tunemill")
    project.edit(push_dataset_to_hub=place)
    if not has_rows:
        for name in ("artifacts/tokenized", "artifacts/training_data", "refs"):
            remove_tree(project.state / name)
    return project


def preprocess(hub, project, *more, code=0, **environment):
    """The nodes, and what was said."""
    state = ("--state", str(project.state))
    done = hub.tunemill(
        project.folder, "preprocess", str(project.yaml), "--json", *state, *more, **environment
    )
    assert done.returncode == code, done.stderr
    nodes = json.loads(done.stdout).get("nodes", [])
    return {node["node"]: node for node in nodes}, done.stderr


@pytest.fixture(scope="module")
def pushed(hub, prepared, tmp_path_factory):
    """A project whose rows were pushed, its nodes, and what was said."""
    project = machine(prepared, tmp_path_factory.mktemp("pushed"), NAME, has_rows=True)
    _, said = preprocess(hub, project, code=1)
    assert "could not be pushed" in said and "a token that may write" in said
    assert NAME not in hub.repositories
    return project, *preprocess(hub, project, HF_TOKEN=TOKEN)


def files_on(hub):
    repository = hub.repositories[NAME]
    return repository.commits[repository.revisions["main"]]


@pytest.mark.slow
def test_what_is_pushed_is_private_and_holds_no_rows_of_the_source(hub, pushed):
    _, nodes, said = pushed
    assert f"pushed to {NAME}" in said
    assert hub.repositories[NAME].token == TOKEN, "a repository with a token is private"
    found = files_on(hub)
    kinds = {name.split("/")[1] for name in found if name.startswith("artifacts/")}
    assert kinds == {"tokenized", "training_data"}
    assert not any(b"messages" in content for name, content in found.items() if "/data/" in name)
    address = f"artifacts/training_data/{nodes['training_data']['key']}/manifest.json"
    assert json.loads(found[address])["digest"] == nodes["training_data"]["digest"]


@pytest.mark.slow
def test_others_can_read_the_rows(hub, pushed, tmp_path):
    project, nodes, _ = pushed
    code = f"from datasets import load_dataset; print(load_dataset({NAME!r}, split='train').to_list())"
    done = hub.run(tmp_path, code, HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    data = project.state / "artifacts" / "training_data" / nodes["training_data"]["key"] / "data"
    assert done.stdout.strip() == str(read_arrow(data / "rows.arrow"))


@pytest.mark.slow
def test_the_same_rows_are_pushed_once_and_nobody_has_to_be_reached_again(hub, pushed):
    project, *_ = pushed
    before = len(hub.repositories[NAME].commits)
    assert "pushed" not in preprocess(hub, project, HF_TOKEN=TOKEN)[1]
    assert len(hub.repositories[NAME].commits) == before
    said = preprocess(hub, project, HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")[1]
    assert "these rows were pushed before" in said


@pytest.mark.slow
def test_another_machine_pulls_and_prepares_nothing(hub, prepared, pushed, tmp_path):
    _, before, _ = pushed
    project = machine(prepared, tmp_path, NAME, has_rows=False)
    commits = len(hub.repositories[NAME].commits)
    nodes, said = preprocess(hub, project, HF_TOKEN=TOKEN)
    assert {node["state"] for node in nodes.values()} == {"cached"}
    assert said.count(f"pulled from {NAME}") == 2
    assert {nodes[name]["digest"] for name in ROWS} == {before[name]["digest"] for name in ROWS}
    assert nodes["training_data"]["metrics"] == before["training_data"]["metrics"]
    assert project.store.verify(project.plan()["training_data"].cached.folder) == []
    assert len(hub.repositories[NAME].commits) == commits


@pytest.mark.slow
@pytest.mark.usefixtures("pushed")
def test_other_settings_are_prepared_and_pushed_beside(hub, tmp_path):
    # A project from nothing: its keys are the same wherever it is.
    project = make_project(
        tmp_path / "other", datasets=SUMS, test_datasets=None, push_dataset_to_hub=NAME, sequence_len=64
    )
    nodes, _ = preprocess(hub, project, HF_TOKEN=TOKEN)
    assert nodes["training_data"]["state"] == "computed" and nodes["tokenized_sums"]["state"] == "cached"
    tables = [name for name in files_on(hub) if name.startswith("rows/")]
    card = files_on(hub)["README.md"].decode()
    assert len(tables) == 2 and all(name in card for name in tables) and card.count("default: true") == 1
    assert card.index("default: true") > card.index(
        f"rows/training_data-{nodes['training_data']['key'][:12]}"
    )


def refused(hub, folder, name, token):
    """What is said where a file is added to a repository."""
    code = (
        "from tunemill.resources.errors import StoreError\n"
        "from tunemill.resources.shared_folder import shared_folder\n"
        f"try: shared_folder({name!r}, None).add([('rows/x.parquet', b'1')])\n"
        "except StoreError as error: print(error)"
    )
    done = hub.run(folder, code, **({"HF_TOKEN": token} if token else {}))
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_token_that_may_not_write_and_a_public_repository_are_refused(hub, tmp_path):
    assert "must be one that may write to datasets of team" in refused(hub, tmp_path, "team/new", READER)
    hub.repository("team/public").commit({"README.md": b"# Rows\n"})
    assert "team/public: is public" in refused(hub, tmp_path, "team/public", TOKEN)


def test_the_text_of_a_card_stays(hub, tmp_path):
    hub.repository("team/card", TOKEN).commit({"README.md": b"---\nlicense: mit\n---\n# Ours\n"})
    assert refused(hub, tmp_path, "team/card", TOKEN) == ""
    repository = hub.repositories["team/card"]
    card = repository.commits[repository.revisions["main"]]["README.md"].decode()
    assert "license: mit" in card and "# Ours" in card and "data_files: rows/x.parquet" in card


@pytest.fixture
def twins(prepared, tmp_path):
    """Two machines that share a folder beside their projects; the first one has the rows."""
    place = "../../common"
    return [machine(prepared, tmp_path / name, place, has_rows=name == "one") for name in ("one", "two")]


def test_a_folder_is_shared_and_rows_in_place_are_pushed_to_it(twins, tmp_path):
    one, two = twins
    first = one.run(only={"training_data"})
    assert nodes_in_state(first, "computed") == set()
    (table,) = (tmp_path / "common" / "rows").iterdir()
    assert pq.read_table(table).num_rows == 20
    second = two.run(only={"training_data"})
    assert nodes_in_state(second, "cached") >= ROWS
    assert second["training_data"].published.digest == first["training_data"].published.digest
    log = second["training_data"].published.folder / "logs" / "output.log"
    assert f"pulled from {tmp_path / 'common'}, with digest" in log.read_text()


@pytest.mark.parametrize("file", ["data/rows.arrow", "manifest.json"])
def test_what_was_damaged_is_prepared_again(twins, tmp_path, file):
    one, two = twins
    one.run(only={"training_data"})
    (damaged,) = (tmp_path / "common" / "artifacts" / "training_data").glob(f"*/{file}")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    said = []
    finished = two.run(only={"training_data"}, observe=lambda _, event: said.append(event.get("message")))
    assert finished["training_data"].state == "computed" and finished["tokenized_sums"].state == "cached"
    assert any(message and "is damaged" in message and file in message for message in said)


def test_no_file_outside_of_the_folder_is_written(twins, tmp_path):
    one, two = twins
    one.run(only={"training_data"})
    (path,) = (tmp_path / "common" / "artifacts" / "training_data").glob("*/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    manifest["files"]["data/../../../outside"] = manifest["files"]["data/rows.arrow"]
    path.write_text(json.dumps({**manifest, "sha256": hash_document(manifest)}))
    shutil.copy(path.parent / "data" / "rows.arrow", tmp_path / "common" / "artifacts" / "outside")
    assert two.run(only={"training_data"})["training_data"].state == "computed"
    assert not list(two.folder.rglob("outside"))


def test_what_is_prepared_is_pushed(twins, tmp_path):
    _, two = twins
    assert nodes_in_state(two.run(only={"training_data"}), "computed") >= ROWS
    assert len([*(tmp_path / "common" / "artifacts").glob("*/*/manifest.json")]) == 2


@pytest.mark.slow
def test_an_object_store_is_shared_too(prepared, tmp_path, monkeypatch):
    with s3_server("shared") as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        one = machine(prepared, tmp_path / "one", "s3://shared/team", has_rows=True)
        two = machine(prepared, tmp_path / "two", "s3://shared/team", has_rows=False)
        one.run(only={"training_data"})
        assert nodes_in_state(two.run(only={"training_data"}), "cached") >= ROWS
        one.edit(push_dataset_to_hub="s3://nowhere/team")
        with pytest.raises(ValueError, match="could not be pushed: s3://nowhere/team: cannot be written to"):
            one.run(only={"training_data"})


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("rows", "write owner/name"),
        ("owner/na--me", "write owner/name"),
        ("owner/name/more", "write owner/name"),
        ("https://example.org/rows", "https:// cannot be written to"),
        ("s3://me:password@bucket/rows", "leave out who you are"),
        ("adl://store/rows", "pip install adlfs"),
        ("./pipeline.yml", "pipeline.yml is no folder"),
        ("./pipeline.yml/rows", "pipeline.yml is no folder"),
        ("~nobody-of-this-name/rows", "no home folder behind"),
    ],
)
def test_places_that_can_be_none_fail_in_check(prepared, place, reason):
    with pytest.raises(ConfigError) as refused:
        load_pipeline(prepared.yaml, [f"push_dataset_to_hub={place}"])
    (problem,) = [problem for problem in refused.value.problems if not problem.is_note]
    assert problem.path == "push_dataset_to_hub" and reason in problem.message


def test_the_hub_is_not_pushed_to_without_sending_a_token(prepared):
    overrides = [f"push_dataset_to_hub={NAME}", "hf_use_auth_token=false"]
    with pytest.raises(ConfigError, match="hf_use_auth_token: false sends none"):
        load_pipeline(prepared.yaml, overrides)
