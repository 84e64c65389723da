"""OpenLineage events of a real run: a real server and a file get them; one that is not there breaks nothing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.project import nodes_in_state

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "sesame-123")
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", got
        running.shutdown()


def asked(**settings):
    return {"openlineage": settings}


@pytest.mark.slow
def test_a_run_is_told_to_a_server_and_to_a_file_and_a_dead_server_changes_nothing(project, server):
    url, got = server
    before = {name: item.key for name, item in project.plan().items()}
    project.edit(pipeline=asked(transport="http", url=url))
    assert {name: item.key for name, item in project.plan().items()} == before
    sums = project.folder / "data" / "sums.jsonl"
    project.run("eval_max_new_tokens=6")
    assert {path for path, _, _ in got} == {"/api/v1/lineage"}
    assert {key for _, key, _ in got} == {"Bearer sesame-123"}
    told = {(event["job"]["name"], event["eventType"]): event for _, _, event in got}
    evaluated = {f"pipeline/evaluation_of_{what}" for what in ("base", "trained", "merged", "quantized")}
    assert set(told) == {(name, state) for name in evaluated for state in ("START", "COMPLETE")}
    done = told["pipeline/evaluation_of_merged", "COMPLETE"]
    digests = {name: item.cached.digest for name, item in project.plan("eval_max_new_tokens=6").items()}
    (output,) = done["outputs"]
    assert output["facets"]["version"]["datasetVersion"] == digests["evaluation_of_merged"]
    inputs = {one["name"]: one["facets"]["version"]["datasetVersion"] for one in done["inputs"]}
    assert inputs["pipeline/merged"] == digests["merged"]
    assert len({event["run"]["facets"]["parent"]["run"]["runId"] for _, _, event in got}) == 1

    project.edit(pipeline=asked(transport="file", path="lineage/events.jsonl", namespace="here"))
    sums.write_text("\n".join(reversed(sums.read_text().splitlines())) + "\nno JSON\n")
    assert nodes_in_state(project.run(), "failed") == {"dataset_sums"}
    lines = [
        json.loads(line) for line in (project.folder / "lineage" / "events.jsonl").read_text().splitlines()
    ]
    (failed,) = [one for one in lines if one["eventType"] == "FAIL"]
    assert failed["job"] == {"namespace": "here", "name": "pipeline/dataset_sums", "facets": {}}
    assert "sums.jsonl" in failed["run"]["facets"]["errorMessage"]["message"] and failed["outputs"] == []
    assert ("file", str(sums)) in {(one["namespace"], one["name"]) for one in failed["inputs"]}

    project.edit(pipeline=asked(transport="http", url="http://who:pa55-w0rd@127.0.0.1:9"))
    sums.write_text(sums.read_text().replace("no JSON\n", ""))
    said = []
    finished = project.run(observe=lambda _, event: said.append(event.get("message") or ""))
    assert nodes_in_state(finished, "failed", "skipped") == set() and "dataset_sums" in nodes_in_state(
        finished, "computed"
    )
    (line,) = [line for line in said if line.startswith("OpenLineage")]
    assert "No more events are sent" in line and "pa55-w0rd" not in line


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"transport": "file", "url": "http://a"}, "file takes path, and no url"),
        ({"transport": "http"}, "http takes url, and no path"),
        ({"transport": "http", "url": "a.org"}, "url"),
    ],
)
def test_what_is_refused_says_what_is_wrong(project, settings, rule):
    project.edit(pipeline=asked(**settings))
    with pytest.raises(ConfigError, match=rule):
        load_pipeline(project.yaml)
