"""What becomes of a run's nodes, told as OpenLineage events. A server that does not answer breaks and delays no run."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from tunemill import __version__
from tunemill.pipelines.config.openlineage_keys import OpenLineage
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import upstream_asset
from tunemill.pipelines.run.record import Done
from tunemill.resources.protocols import without_credentials
from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.store import Published, Store
from tunemill.stages.artifacts import RawDataset

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent
    from openlineage.client.transport.transport import Transport

# Of one answer of a server; and for how long a run waits at its end for what is not sent yet.
ANSWER_SECONDS, LAST_SECONDS = 2.0, 4.0
KEY = "OPENLINEAGE_API_KEY"
PRODUCER = f"tunemill/{__version__}"


@dataclass
class LineageEvents:
    """The events of one pipeline on their way: in order, by a thread of their own, until one is not taken."""

    pipeline: Pipeline
    store: Store
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))
    _sent: list[Future[str | None]] = field(default_factory=list)
    _gave_up: bool = False

    def tell(self, node: Node, run: str, done: Done, say: Callable[[str], None]) -> None:
        """Send the beginning and the end of a node that is finished just now."""
        asked = self.pipeline.openlineage
        if asked is None or self._gave_up:
            return
        events = list(events_of(self.pipeline, asked, node, run, done, self.store))
        self._sent.append(self._thread.submit(self._send, asked, events))
        self._hear(say, 0.0)

    def finish(self, say: Callable[[str], None]) -> None:
        """Wait a moment for what is on its way."""
        self._hear(say, LAST_SECONDS)

    def _hear(self, say: Callable[[str], None], seconds: float) -> None:
        """Say once that something was not taken."""
        until = time.monotonic() + seconds
        while self._sent and not self._gave_up:
            try:
                problem = self._sent[0].result(max(until - time.monotonic(), 0.0))
            except TimeoutError:
                return
            self._sent.pop(0)
            if problem is not None:
                self._gave_up = True
                say(f"OpenLineage: {problem}. No more events are sent; the run is not touched by that")

    def _send(self, asked: OpenLineage, events: list["RunEvent"]) -> str | None:
        """What stood in the way, if anything did."""
        from requests import RequestException

        if self._gave_up:
            return None
        try:
            transport = _transport(self.pipeline, asked)
            for event in events:
                transport.emit(event)
            transport.close(0)
        # The file transport makes a RuntimeError of everything.
        except (RequestException, OSError, RuntimeError, ValueError) as error:
            return redacted(str(error), secrets_in(asked.model_dump(mode="json"), os.environ))
        return None


def events_of(
    pipeline: Pipeline, asked: OpenLineage, node: Node, run: str, done: Done, store: Store
) -> Iterator["RunEvent"]:
    """START, and COMPLETE or FAIL, of a node that took `done.seconds` until now. What was cached is COMPLETE."""
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run, parent_run

    now = datetime.now(UTC)
    parent = parent_run.ParentRunFacet(
        parent_run.Run(str(uuid5(NAMESPACE_URL, f"tunemill:{run}"))),
        parent_run.Job(asked.namespace, pipeline.name),
    )
    facets: dict[str, Any] = {"parent": parent}
    identity = str(uuid5(NAMESPACE_URL, f"tunemill:{run}/{pipeline.name}/{node.name}"))
    job = Job(asked.namespace, f"{pipeline.name}/{node.name}")
    inputs = _inputs(pipeline, asked, node, store)
    began = (now - timedelta(seconds=done.seconds)).isoformat()
    yield RunEvent(
        eventTime=began,
        producer=PRODUCER,
        run=Run(identity, facets),
        job=job,
        eventType=RunState.START,
        inputs=inputs,
    )
    failed = done.state == "failed"
    if failed:
        facets = facets | {
            "errorMessage": error_message_run.ErrorMessageRunFacet(done.message or "", "PYTHON")
        }
    outputs = [] if failed else _outputs(pipeline, asked, node, done, store)
    state = RunState.FAIL if failed else RunState.COMPLETE
    yield RunEvent(
        eventTime=now.isoformat(),
        producer=PRODUCER,
        run=Run(identity, facets),
        job=job,
        eventType=state,
        inputs=inputs,
        outputs=outputs,
    )


def _inputs(pipeline: Pipeline, asked: OpenLineage, node: Node, store: Store) -> list["InputDataset"]:
    """What comes from other nodes, with its facets, and what comes from outside."""
    from openlineage.client.event_v2 import InputDataset

    found = []
    for upstream in upstream_of(node):
        asset = upstream if upstream.startswith(ASSET_SCHEME) else f"{ASSET_SCHEME}{pipeline.name}/{upstream}"
        artifact = upstream_asset(asset, store)
        facets = _facets(artifact) if isinstance(artifact, Published) else {}
        found.append(InputDataset(asked.namespace, asset.removeprefix(ASSET_SCHEME), facets=facets))
    for names in node.sources.values():
        for name in map(without_credentials, names):
            scheme, remote, rest = name.partition("://")
            found.append(InputDataset(scheme, rest) if remote else InputDataset("file", name))
    return found


def _outputs(
    pipeline: Pipeline, asked: OpenLineage, node: Node, done: Done, store: Store
) -> list["OutputDataset"]:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    artifact = None if done.place is None else store.lookup(*done.place)
    if not isinstance(artifact, Published):
        return []
    files: Mapping[str, Any] = artifact.manifest["files"]
    rows = artifact.manifest["metrics"].get("rows")
    counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=rows if isinstance(rows, int) else None,
        size=sum(entry["bytes"] for entry in files.values()),
        fileCount=len(files),
    )
    name = f"{pipeline.name}/{node.name}"
    return [OutputDataset(asked.namespace, name, {"outputStatistics": counted}, facets=_facets(artifact))]


def _facets(artifact: Published) -> dict[str, Any]:
    """Its digest as version, and the columns of rows."""
    from openlineage.client.facet_v2 import dataset_version_dataset, schema_dataset

    version = dataset_version_dataset.DatasetVersionDatasetFacet(artifact.digest)
    path = RawDataset(artifact.data).rows
    if not path.is_file():
        return {"version": version}
    # Only where there are rows is it needed.
    import pyarrow as pa

    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        columns = [
            schema_dataset.SchemaDatasetFacetFields(column.name, str(column.type)) for column in reader.schema
        ]
    return {"version": version, "schema": schema_dataset.SchemaDatasetFacet(columns)}


def _transport(pipeline: Pipeline, asked: OpenLineage) -> "Transport":
    """The package's own transport; nothing but the key is taken from the environment."""
    from openlineage.client.transport.file import FileConfig, FileTransport
    from openlineage.client.transport.http import (
        ApiKeyTokenProvider,
        HttpConfig,
        HttpTransport,
        TokenProvider,
    )

    if asked.path is not None:
        path = pipeline.document.folder / asked.path
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileTransport(FileConfig(str(path), append=True))
    assert asked.url is not None, "one of the two is there"
    key = os.environ.get(KEY)
    provider = ApiKeyTokenProvider({"api_key": key}) if key else TokenProvider({})
    once = {"total": 0, "connect": 0, "read": 0}
    return HttpTransport(HttpConfig(asked.url, timeout=ANSWER_SECONDS, auth=provider, retry=once))
