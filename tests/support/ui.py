"""A real Dagster server over a project, started by `tunemill ui`, and the questions that its pages ask."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from support.project import Project

LOCATION = "tunemill.pipelines.assets.definitions"
# On a machine that does much else.
START_SECONDS = 240


@dataclass(frozen=True)
class Ui:
    """A running server. `process` leads the group of everything that it has started."""

    url: str
    process: int

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """One GraphQL question; fails the test on an error."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"{self.url}/graphql", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def assets(self) -> dict[str, dict[str, Any]]:
        """`pipeline/node` -> what the lineage page shows of it."""
        nodes = self.ask(
            "{assetNodes{assetKey{path} groupName description kinds isMaterializable"
            " staleStatus staleCauses{reason category}"
            " assetMaterializations(limit: 1){runId metadataEntries{label}}}}"
        )["assetNodes"]
        return {"/".join(node["assetKey"]["path"]): node for node in nodes}

    def reload(self) -> None:
        """The reload button."""
        self.ask(
            "mutation($name: String!){reloadRepositoryLocation(repositoryLocationName: $name){__typename}}",
            name=LOCATION,
        )

    def checks(self) -> dict[str, dict[str, Any]]:
        """`pipeline/node name` -> what the asset's page shows of a check."""
        nodes = self.ask(
            "{assetNodes{assetKey{path} assetChecksOrError{... on AssetChecks{checks{name description blocking"
            " executionForLatestMaterialization{status evaluation{severity description}}}}}}}"
        )["assetNodes"]
        return {
            f"{'/'.join(node['assetKey']['path'])} {check['name']}": check
            for node in nodes
            for check in node["assetChecksOrError"].get("checks", ())
        }

    def launch(self, nodes: list[list[str]], checks: Sequence[tuple[list[str], str]] = ()) -> str:
        """The materialize button over a selection, with checks of it; returns the run's id."""
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": path} for path in nodes],
            # As the UI does: what an asset says of itself goes with it.
            "assetCheckSelection": [
                {"assetKey": {"path": path}, "name": name} for path, name in [*checks, *self._own(nodes)]
            ],
        }
        answer = self.ask(
            "mutation($p: ExecutionParams!){launchPipelineExecution(executionParams: $p)"
            "{__typename ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}",
            p={"selector": selector, "mode": "default", "runConfigData": "{}"},
        )["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def launch_job(self, name: str) -> str:
        """The button of a job on its page; returns the run's id."""
        selector = {
            "repositoryLocationName": LOCATION, "repositoryName": "__repository__", "pipelineName": name,
        }  # fmt: skip
        answer = self.ask(
            "mutation($p: ExecutionParams!){launchPipelineExecution(executionParams: $p)"
            "{__typename ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}}}",
            p={"selector": selector, "mode": "default", "runConfigData": "{}"},
        )["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def steps(self, run_id: str) -> set[str]:
        """The steps that a run has begun, by their assets' names."""
        found = self.ask(
            "query($id: ID!){runOrError(runId: $id){... on Run{stepStats{stepKey startTime}}}}", id=run_id
        )["runOrError"]["stepStats"]
        return {step["stepKey"].partition("__")[2] for step in found if step["startTime"]}

    def _own(self, nodes: list[list[str]]) -> list[tuple[list[str], str]]:
        """The checks that are no steps of their own: all but gates."""
        found = [(name.split(" "), check) for name, check in self.checks().items()]
        return [
            (path.split("/"), name)
            for (path, name), check in found
            if path.split("/") in nodes and not check["blocking"]
        ]

    def status(self, run_id: str) -> str:
        """The run's status."""
        return self.ask("query($id: ID!){runOrError(runId: $id){... on Run{status}}}", id=run_id)[
            "runOrError"
        ]["status"]

    def wait(self, run_id: str, seconds: float = 180) -> str:
        """The run's last status."""
        deadline = time.monotonic() + seconds
        while (status := self.status(run_id)) not in ("SUCCESS", "FAILURE", "CANCELED"):
            assert time.monotonic() < deadline, f"run {run_id} is still {status}"
            time.sleep(0.3)
        return status

    def said(self, run_id: str) -> str:
        """What the run's log says."""
        events = self.ask(
            "query($id: ID!){logsForRun(runId: $id, limit: 2000){... on EventConnection{events"
            "{... on MessageEvent{message}}}}}",
            id=run_id,
        )["logsForRun"]["events"]
        return "\n".join(event.get("message", "") for event in events)

    def terminate(self, run_id: str) -> None:
        """The terminate button."""
        self.ask("mutation($id: String!){terminateRun(runId: $id){__typename}}", id=run_id)


@contextmanager
def serve(project: Project) -> Iterator[Ui]:
    """Start `tunemill ui` over the project's folder on a free port; end it and everything it started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = project.folder.with_name("ui.log")
    command = [sys.executable, "-m", "tunemill.pipelines.cli", "ui", str(project.folder)]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--state", str(project.state)],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=project.folder,
        )
    ui = Ui(f"http://127.0.0.1:{port}", server.pid)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                assert ui.assets()
                break
            except (urllib.error.URLError, ConnectionError, AssertionError):
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield ui
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            # Dagster leaves some of its own running for longer; nothing of theirs is wanted any more.
            server.wait(3)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
