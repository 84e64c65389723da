"""A dataset that is one URL, whose server says a date and no hash: it runs, and its lineage is told."""

import functools
import http.server
import json
import threading

import pytest
from support.project import chat_row

from tunemill.pipelines.cli import main


@pytest.fixture
def server(project):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(project.folder / "data"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


@pytest.mark.slow
def test_a_dataset_behind_a_url(project, server, capsys):
    url = f"{server}/products.jsonl"
    rows = [chat_row(f"{a} * {b}", str(a * b)) for a in range(4) for b in range(4)]
    (project.folder / "data" / "products.jsonl").write_text("".join(rows))
    project.edit(datasets=[{"path": url, "type": "chat_template", "ds_type": "json"}])
    finished = project.run()
    assert {item.state for item in finished.values()} <= {"cached", "computed"}, finished
    assert main(["lineage", "pipeline/trained", "--state", str(project.state)]) == 0
    said = capsys.readouterr().out
    shown = [line for line in said.splitlines() if url in line]
    document = json.loads((finished["trained"].published.data / "tunemill_lineage.json").read_text())
    sources = [item["sources"] for item in document["ancestors"].values() if item["artifact"] == "RawDataset"]
    ((identity,),) = [source for found in sources for source in found.values() if source[0]["path"] == url]
    assert "sha256" not in identity
    assert shown and all(identity["checksum"][:12] in line for line in shown)
