"""The tracker's side: a process of its own, so that what a tracker's library does harms no training.

`python -m tunemill.resources.trackers.process` reads JSON lines from its standard input (`open`, then `step`s, then
`finish`) and writes where its run can be seen to its standard output. The end of its input without `finish` is a
training that was killed.
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunemill.resources.trackers.table import TRACKERS
from tunemill.resources.trackers.tracked_run import TrackedRun, Tracker


def open_tracker(message: Mapping[str, Any]) -> Tracker:
    """Open the run that an `open` message describes."""
    module = importlib.import_module(f"tunemill.resources.trackers.{TRACKERS[message['tracker']].module}")
    run = TrackedRun(**{**message["run"], "folder": Path(message["run"]["folder"])})
    run.folder.mkdir(parents=True, exist_ok=True)
    opened: Tracker = module.open_run(message["settings"], run)
    return opened


def main() -> int:
    """Serve one run, to its end."""
    # What a library prints is for nobody: standard output is ours.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    tracker: Tracker | None = None
    for line in sys.stdin:
        message = json.loads(line)
        match message["type"]:
            case "open":
                tracker = open_tracker(message)
                answers.write(json.dumps({"run_id": tracker.run_id, "place": tracker.place}) + "\n")
            case "step":
                assert tracker is not None, "a run is opened before its first step"
                tracker.log(message["step"], message["metrics"])
            case "finish":
                assert tracker is not None, "a run is opened before it ends"
                artifact = message["artifact"]
                tracker.finish(
                    message["succeeded"], message["summary"], None if artifact is None else Path(artifact)
                )
                return 0
    if tracker is not None:
        tracker.finish(False, {}, None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
