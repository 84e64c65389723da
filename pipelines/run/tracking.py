"""A training's figures on their way to the trackers that its YAML asks for. What a tracker does changes no result."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.tracker_config import TrackerConfig
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.redaction import redacted_document, secrets_in
from tunemill.resources.store import Published
from tunemill.resources.trackers.client import TrackerProcess
from tunemill.resources.trackers.table import TRACKERS

# To write and send what is left; the same with a whole model; and where the training failed or was interrupted.
FINISH_SECONDS, UPLOAD_SECONDS, GIVEN_UP_SECONDS = 60.0, 3600.0, 10.0
UPLOADS = ("wandb_log_model", "hf_mlflow_log_artifacts")


class NodeTracking:
    """Hears a node's events, and opens its trackers at the first step."""

    def __init__(
        self,
        pipeline: Pipeline,
        trackers: TrackerConfig,
        node: Node,
        root: Path,
        say: Callable[[str], None],
    ) -> None:
        self._pipeline, self._trackers, self._node = pipeline, trackers, node
        self._root, self._say = root, say
        # Words come from other threads, and are said by this one.
        self._words: deque[str] = deque()
        self._key = ""
        self._open: dict[str, TrackerProcess] | None = None
        self._summary: dict[str, Any] = {}

    def hear(self, event: dict[str, Any]) -> None:
        """Take in an event of the node."""
        match event["type"]:
            case "start":
                self._key = event["key"]
            case "step":
                if self._open is None:
                    self._open = dict(self._processes())
                for process in self._open.values():
                    process.send({"type": "step", "step": event["step"], "metrics": event["metrics"]})
            case "summary":
                self._summary |= event["metrics"]
        self._speak()

    def end(self, published: Published | None) -> None:
        """The node has its artifact, or failed. An interrupted training can be gone on with, and so can its run."""
        for name, process in (self._open or {}).items():
            if published is None:
                process.finish(False, self._summary, None, GIVEN_UP_SECONDS)
                continue
            settings = self._trackers.settings_of(name)
            uploads = any(settings.get(key) for key in UPLOADS)
            seconds = UPLOAD_SECONDS if uploads else FINISH_SECONDS
            process.finish(True, self._summary, str(published.data), seconds)
            with suppress(OSError):
                self._note(name).unlink(missing_ok=True)
        self._open = {}
        self._speak()

    def _processes(self) -> Iterator[tuple[str, TrackerProcess]]:
        """Those that can be started: a machine without room for a process still trains."""
        for name in self._trackers.asked:
            try:
                yield name, self._process(name)
            except OSError as error:
                self._say(
                    f"{TRACKERS[name].title} cannot be started: {error}. The training is not touched by that"
                )

    def _process(self, name: str) -> TrackerProcess:
        pipeline, node = self._pipeline, self._node
        settings = node.config.model_dump(mode="json")
        facts = {
            "pipeline": pipeline.name,
            "node": node.name,
            "stage": node.stage.name,
            "key": self._key,
            "yaml": str(pipeline.document.path),
        }
        run = {
            "name": f"{pipeline.name}/{node.name}",
            "settings": redacted_document(settings, secrets_in(settings, os.environ)),
            "facts": facts,
            "folder": str(self._folder(name)),
            "run_id": self._run_id(name),
        }
        return TrackerProcess(
            name, self._trackers.settings_of(name), run, self._words.append, partial(self._remember, name)
        )

    def _folder(self, name: str) -> Path:
        below = self._pipeline.output_dir
        return below / "runs" / name if below is not None else self._root / "trackers" / name

    def _note(self, name: str) -> Path:
        """Where the tracker's own name of a run lies while that run is not finished."""
        return self._root / "trackers" / "unfinished" / f"{name}_{self._key}.json"

    def _run_id(self, name: str) -> str | None:
        try:
            found = json.loads(self._note(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, str) else None

    def _remember(self, name: str, run_id: str) -> None:
        with suppress(OSError):
            self._note(name).parent.mkdir(parents=True, exist_ok=True)
            self._note(name).write_text(json.dumps(run_id), encoding="utf-8")

    def _speak(self) -> None:
        while self._words:
            self._say(self._words.popleft())


@contextmanager
def tracking(
    pipeline: Pipeline, trackers: TrackerConfig, node: Node, root: Path, say: Callable[[str], None]
) -> Iterator[NodeTracking]:
    """The tracking of one node, ended whatever happens. `root` is the store's folder."""
    tracked = NodeTracking(pipeline, trackers, node, root, say)
    try:
        yield tracked
    finally:
        # Does nothing where the node has said itself how it ended.
        tracked.end(None)
