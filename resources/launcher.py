"""Where a stage's body runs: in this process, or in a child process of its own group.

A call is one JSON document (body, config slice, input folders, workspace), so every launcher runs the same
thing. `python -m tunemill.resources.launcher REQUEST` is the child's side. Events come back as JSON lines
on a pipe; a second pipe is the child's lifeline: when the parent is gone, so is the child's whole group.
"""

import errno
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tunemill.resources.environment import child_environment
from tunemill.resources.errors import LaunchError

Sink = Callable[[dict[str, Any]], None]
POLL_SECONDS = 0.2
GRACE_SECONDS = {signal.SIGINT: 3.0, signal.SIGTERM: 2.0, signal.SIGKILL: 5.0}
TAIL_LINES = 30


@dataclass(frozen=True)
class Call:
    """What to run. Classes and functions are named `module:name`; `inputs` maps name -> (class, folders).

    Folders are a string, a list of strings for `many`, or None for an absent optional input.
    """

    body: str
    config_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str | list[str] | None]]
    workspace_class: str
    workspace: Mapping[str, str]
    report_class: str
    user_error: str


class Launcher(Protocol):
    """Runs a call to its end, sends its events to `sink`, raises LaunchError if it gives no result."""

    def __call__(self, call: Call, sink: Sink) -> None: ...


def name_of(item: Any) -> str:
    """The `module:name` of a class or function."""
    return f"{item.__module__}:{item.__qualname__}"


def in_this_process(call: Call, sink: Sink) -> None:
    """Run the body here: no isolation, no import cost. For tests and for debugging."""
    user_error = _named(call.user_error)
    try:
        _execute(call, sink)
    except user_error as error:
        raise LaunchError(str(error), user=True) from error


def in_child(call: Call, sink: Sink) -> None:
    """Run the body in a child process with its own process group; stop the whole group on any exception."""
    logs = Path(call.workspace["logs"])
    request = logs / "request.json"
    request.write_text(json.dumps(asdict(call), indent=1))
    with ExitStack() as descriptors:
        events_read, events_write, lifeline_read, lifeline_write = (*os.pipe(), *os.pipe())
        for descriptor in (events_read, lifeline_write):
            descriptors.callback(os.close, descriptor)
        try:
            child = _start(request, events_write, lifeline_read, logs / "output.log")
        finally:
            os.close(events_write)
            os.close(lifeline_read)
        failure: list[dict[str, Any]] = []
        try:
            _forward(events_read, child, sink, failure)
        finally:
            _stop_group(child)
    if child.returncode != 0:
        raise _explain(child.returncode, failure, logs / "output.log")


def _start(request: Path, events: int, lifeline: int, output: Path) -> subprocess.Popen[bytes]:
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tunemill.resources.launcher", str(request), str(events), str(lifeline)],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=child_environment(os.environ),
            pass_fds=(events, lifeline),
            start_new_session=True,
        )


def _forward(events: int, child: subprocess.Popen[bytes], sink: Sink, failure: list[dict[str, Any]]) -> None:
    """Pass events on until the child has ended and its pipe is empty."""
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(events, selectors.EVENT_READ)
        while True:
            ended = child.poll() is not None
            if selector.select(0 if ended else POLL_SECONDS):
                chunk = os.read(events, 1 << 16)
                if not chunk:
                    child.wait()
                    return
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    (failure.append if event["type"] == "failed" else sink)(event)
            elif ended:
                return


def _stop_group(child: subprocess.Popen[bytes]) -> None:
    """INT, TERM, KILL in turn to whatever of the group is left."""
    for number, seconds in GRACE_SECONDS.items():
        if child.poll() is not None:
            number = signal.SIGKILL
        try:
            os.killpg(child.pid, number)
        except ProcessLookupError:
            return
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
        if number == signal.SIGKILL:
            return


def _explain(returncode: int, failure: list[dict[str, Any]], output: Path) -> LaunchError:
    if failure:
        return LaunchError(failure[0]["message"], user=True)
    tail = "\n".join(output.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    if "No space left on device" in tail:
        return LaunchError(_disk_full(output), user=True)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
        return LaunchError(
            f"the stage's process was ended by {name}{hint}; run again to go on from its last checkpoint, if any"
        )
    return LaunchError(f"the stage's process ended with exit code {returncode}; the end of {output}:\n{tail}")


def _disk_full(path: Path) -> str:
    return (
        f"the disk is full: no space left for {path.parent.parent}; nothing was published. Free some space, or "
        f"prune the store with `tunemill cache prune`, and run again"
    )


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _execute(call: Call, sink: Sink) -> None:
    body = _named(call.body)
    config = _named(call.config_class).model_validate(call.config)
    inputs: dict[str, Any] = {}
    for name, (class_name, folders) in call.inputs.items():
        artifact = _named(class_name)
        match folders:
            case None:
                inputs[name] = None
            case str():
                inputs[name] = artifact(Path(folders))
            case _:
                inputs[name] = [artifact(Path(folder)) for folder in folders]
    workspace = _named(call.workspace_class)(**{name: Path(path) for name, path in call.workspace.items()})
    body(config, **inputs, out=workspace, report=_named(call.report_class)(sink))


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(request: str, events: int, lifeline: int) -> int:
    """The child's side: run the call of a request file."""
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    call = Call(**json.loads(Path(request).read_text()))
    pipe = os.fdopen(events, "w", buffering=1)

    def sink(event: dict[str, Any]) -> None:
        pipe.write(json.dumps(event) + "\n")

    user_error = _named(call.user_error)
    try:
        _execute(call, sink)
    except user_error as error:
        sink({"type": "failed", "message": str(error)})
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        sink({"type": "failed", "message": _disk_full(Path(request))})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
