"""A dataset of the Hub is what its files are: a commit that changes other things is not read again."""

import json

import pytest
from support.hub import hub_server
from support.project import chat_row, make_project

NAME = "owner/rows"
ROWS = "".join(chat_row(f"{a} + {b}", str(a + b)) for a in range(4) for b in range(4)).encode()
CARD = b"---\nconfigs:\n- config_name: sums\n  data_files: sums.jsonl\n---\n# Sums\n"
FILES = {"sums.jsonl": ROWS, "others.jsonl": ROWS[:200], "README.md": CARD, ".gitattributes": b"*.png lfs"}


@pytest.fixture(scope="module")
def hub():
    with hub_server() as server:
        yield server


@pytest.fixture(scope="module")
def state_of(hub, tmp_path_factory):
    """The state of the dataset's node in the plan, after its rows have been read once, at another commit."""
    hub.repository(NAME).commit(FILES)
    entry = {"path": NAME, "name": "sums", "type": "chat_template"}
    project = make_project(tmp_path_factory.mktemp("hub") / "project", datasets=[entry])

    def call(command, *more):
        given = (command, str(project.yaml), "--json", "--state", str(project.state), *more)
        done = hub.tunemill(project.folder, *given)
        assert done.returncode == 0, done.stderr
        (node,) = [
            node for node in json.loads(done.stdout)["nodes"] if node["node"].startswith("dataset_rows")
        ]
        return node

    assert call("run", "--only", "dataset_rows*")["state"] == "computed"

    def state(**changes):
        named = {name.replace("_dot_", "."): data for name, data in changes.items()}
        hub.repositories[NAME].commit({**FILES, **named})
        return call("plan")["state"]

    return state


@pytest.mark.slow
def test_commits_that_change_no_rows_are_the_same_dataset(hub, state_of):
    assert state_of(README_dot_md=CARD + b"And words about them.\n", _dot_gitattributes=b"") == "cached"
    hub.requests.clear()
    assert state_of(README_dot_md=CARD + b"And words about them.\n", _dot_gitattributes=b"") == "cached"
    # The card is read once, and so is the listing of each commit.
    assert hub.requests == [f"GET /api/datasets/{NAME}/revision/main"]


@pytest.mark.parametrize(
    "changes",
    [
        {"sums_dot_jsonl": ROWS + chat_row("9 + 9", "18").encode()},
        {"others_dot_jsonl": b""},
        {"README_dot_md": CARD.replace(b"sums.jsonl", b"others.jsonl")},
        {"more_dot_jsonl": ROWS},
    ],
)
def test_commits_that_may_change_rows_are_read(state_of, changes):
    assert state_of(**changes) == "run"


def test_a_server_that_says_no_hashes_is_asked_for_its_commit(hub, state_of):
    hub.tells_hashes = False
    try:
        assert state_of(README_dot_md=CARD + b"other words") == "run"
    finally:
        hub.tells_hashes = True
