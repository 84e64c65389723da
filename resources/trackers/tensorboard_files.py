"""TensorBoard: event files, written by TensorBoard's own writer, which needs no PyTorch."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.tracked_run import TrackedRun, metric_name


class TensorBoardRun:
    """A folder of event files."""

    def __init__(self, run: TrackedRun) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.run_id = run.run_id or f"{run.name.replace('/', '_')}_{time.strftime('%Y%m%d_%H%M%S')}"
        folder = run.folder / self.run_id
        self.place = f"tensorboard --logdir {run.folder}"
        self._writer = EventFileWriter(str(folder))
        self._resumes = run.run_id is not None
        text = "\n".join(
            f"    {line}" for line in json.dumps(dict(run.facts) | dict(run.settings), indent=1).splitlines()
        )
        self._text("config", text)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Figures of a step; the first after an interruption takes back what lies behind it."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._resumes:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=step, session_log=start))
            self._resumes = False
        values = [Summary.Value(tag=metric_name(name), simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        self._writer.flush()

    def finish(self, succeeded: bool, summary: Mapping[str, Any], artifact: Path | None) -> None:
        """The figures of the whole training as a text, and where its artifact is."""
        state = {"state": "finished" if succeeded else "failed", "artifact": artifact and str(artifact)}
        self._text("summary", json.dumps(state | dict(summary), indent=1))
        self._writer.close()

    def _text(self, tag: str, text: str) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.text.summary_v2 import text_pb

        self._writer.add_event(Event(wall_time=time.time(), step=0, summary=text_pb(tag, text)))


def open_run(_settings: Mapping[str, Any], run: TrackedRun) -> TensorBoardRun:
    """Begin, or go on with, a folder of event files."""
    return TensorBoardRun(run)
