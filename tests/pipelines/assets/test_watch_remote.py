"""A watcher of what lies elsewhere: a new revision on the Hub or in an object store asks for a run."""

import json

import dagster as dg
import pytest
from support.hub import hub_server
from support.project import chat_row, make_project

from tunemill.pipelines.assets.folder import build_definitions
from tunemill.pipelines.assets.instance import open_instance
from tunemill.pipelines.assets.requests import CHANGED
from tunemill.resources.launcher import in_this_process

ROWS = "".join(chat_row(f"{a} + {b}", str(a + b)) for a in range(4) for b in range(4)).encode()
MORE = ROWS + chat_row("9 + 9", "18").encode()
WATCH = {"watch": {"every": 5, "settle": 0}}
# A process of its own: the Hub's client reads its address when it is imported.
LOOK = """
import json
from pathlib import Path
from pipelines.assets.test_watch_remote import look
from support.project import Project
folder = Path({folder!r})
print(json.dumps(look(Project(folder, folder / ".tunemill"), {cursor!r})))
"""


def look(project, cursor):
    """What one look of the watcher says: its cursor, why it started nothing, and what the runs are for."""
    definitions = build_definitions(project.folder, project.state, in_this_process).get_repository_def()
    with (
        open_instance(project.state) as instance,
        dg.build_sensor_context(instance, cursor=cursor, repository_def=definitions) as context,
    ):
        found = definitions.get_sensor_def("pipeline_watch").evaluate_tick(context)
    changed = [
        (asked.tags[CHANGED], sorted(key.path[-1] for key in asked.asset_selection))
        for asked in found.run_requests
    ]
    return found.cursor, found.skip_message, changed


def watched(folder, path):
    entry = {"path": path, "type": "chat_template"}
    if path.startswith("s3://"):
        entry["ds_type"] = "json"
    return make_project(folder / "project", datasets=[entry], pipeline=WATCH)


@pytest.mark.slow
def test_an_object_that_changes_asks_for_a_run_and_one_that_was_only_written_again_does_not(tmp_path, s3):
    project = watched(tmp_path, s3.put("sums.jsonl", ROWS))
    cursor, why, changed = look(project, None)
    assert changed == [] and "from now on" in why
    s3.put("sums.jsonl", ROWS)
    cursor, why, changed = look(project, cursor)
    assert changed == [], why
    s3.put("sums.jsonl", MORE)
    cursor, _, ((path, nodes),) = look(project, cursor)
    assert path == s3.url("sums.jsonl") and {"dataset_sums", "trained", "evaluation_of_merged"} <= set(nodes)
    assert look(project, cursor)[2] == []
    s3.remove("sums.jsonl")
    _, why, changed = look(project, cursor)
    assert changed == [] and why.startswith("waiting: ")


@pytest.mark.slow
def test_a_commit_with_other_rows_asks_for_a_run_and_one_of_words_does_not(tmp_path):
    with hub_server() as hub:
        rows = hub.repository("owner/rows")
        rows.commit({"sums.jsonl": ROWS, "README.md": b"# Sums\n"})
        project = watched(tmp_path, "owner/rows")

        def looked(cursor):
            done = hub.run(project.folder, LOOK.format(folder=str(project.folder), cursor=cursor))
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout.splitlines()[-1])

        cursor, why, changed = looked(None)
        assert changed == [] and "from now on" in why
        rows.commit({"sums.jsonl": ROWS, "README.md": b"# Sums, and words about them\n"})
        cursor, why, changed = looked(cursor)
        assert changed == [], why
        rows.commit({"sums.jsonl": MORE, "README.md": b"# Sums\n"})
        _, _, ((path, nodes),) = looked(cursor)
        assert path == "hf://datasets/owner/rows" and {
            "dataset_rows",
            "trained",
            "evaluation_of_merged",
        } <= set(nodes)
