"""Where a stage's body runs: in this process, or in a child process of its own group.

A call is one JSON document (body, config slice, input folders, workspace), so every launcher runs the same
thing. `python -m tunemill.resources.launcher REQUEST EVENTS LIFELINE` is the child's side. It reads the call from its
standard input, for URLs in it may hold passwords, which no file keeps: the file REQUEST is a redacted copy, for people.
Events come back as JSON lines on a pipe; a second pipe is the child's lifeline: when the parent is gone, so is the
child's whole group. What the child prints goes through the parent into output.log, redacted as well.
"""

import errno
import importlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from tunemill.resources.building import OUTPUT_FILE
from tunemill.resources.environment import child_environment
from tunemill.resources.errors import LaunchError
from tunemill.resources.imports import import_to_stay
from tunemill.resources.redaction import redacted, redacted_document, secrets_in

Sink = Callable[[dict[str, Any]], None]
POLL_SECONDS = 0.2
GRACE_SECONDS = {signal.SIGINT: 3.0, signal.SIGTERM: 2.0, signal.SIGKILL: 5.0}
TAIL_LINES = 30
# In bytes: what has no end by then is written as it is. No secret is as long, but one may be cut in two.
LONGEST_LINE = 1 << 20
# How libraries say that memory ran out or that a GPU is lost: the same work may go well another time.
MACHINE_FAILED = re.compile(
    r"out of memory|OutOfMemoryError|MemoryError|CUDA error|NCCL|device-side", re.IGNORECASE
)


@dataclass(frozen=True)
class Call:
    """What to run. Classes and functions are named `module:name`; `inputs` maps name -> (class, folders).

    Folders are a string, a list of strings for `many`, or None for an absent optional input. A call that may take no
    more than `seconds` is stopped then; `limit` says who wants that.
    """

    body: str
    config_class: str
    config: Mapping[str, Any]
    inputs: Mapping[str, tuple[str, str | list[str] | None]]
    workspace_class: str
    workspace: Mapping[str, str]
    report_class: str
    user_error: str
    seconds: float | None = None
    limit: str = ""


class Launcher(Protocol):
    """Runs a call to its end, sends its events to `sink`, raises LaunchError if it gives no result."""

    def __call__(self, call: Call, sink: Sink) -> None: ...


def name_of(item: Any) -> str:
    """The `module:name` of a class or function."""
    return f"{item.__module__}:{item.__qualname__}"


def in_this_process(call: Call, sink: Sink) -> None:
    """Run the body here: no isolation, no import cost. For tests and for debugging."""
    user_error = _named(call.user_error)
    secrets = secrets_in(call.config, os.environ)
    try:
        _execute(call, lambda event: sink(redacted_document(event, secrets)))
    except user_error as error:
        raise LaunchError(redacted(str(error), secrets), user=True) from None


def in_child(call: Call, sink: Sink, stop: threading.Event | None = None) -> None:
    """Run the body in a child process with its own process group; stop the whole group on any exception.

    `stop`, set by another thread, is as good as an interrupt.
    """
    logs = Path(call.workspace["logs"])
    secrets = secrets_in(call.config, os.environ)
    document, request = asdict(call), logs / "request.json"
    request.write_text(json.dumps(redacted_document(document, secrets), indent=1))
    failure: list[dict[str, Any]] = []

    def take(event: dict[str, Any]) -> None:
        (failure.append if event["type"] == "failed" else sink)(redacted_document(event, secrets))

    with ExitStack() as descriptors:
        events_read, events_write, lifeline_read, lifeline_write = (*os.pipe(), *os.pipe())
        for descriptor in (events_read, lifeline_write):
            descriptors.callback(os.close, descriptor)
        output = descriptors.enter_context((logs / OUTPUT_FILE).open("a", encoding="utf-8"))

        def write(line: str) -> None:
            text = redacted(line, secrets)
            output.write(text)
            output.flush()
            sink({"type": "output", "text": text})

        try:
            child = _start(request, events_write, lifeline_read)
        finally:
            os.close(events_write)
            os.close(lifeline_read)
        assert child.stdin is not None and child.stdout is not None, "both are pipes"
        descriptors.callback(child.stdout.close)
        try:
            _hand_over(json.dumps(document), child)
            _forward({events_read: Lines(lambda line: take(json.loads(line))),
                      child.stdout.fileno(): Lines(write, keep_ends=True)}, child, _goes_on(call, stop))  # fmt: skip
        finally:
            _stop_group(child)
    if child.returncode != 0:
        raise _explain(child.returncode, failure, logs / OUTPUT_FILE)


def _start(request: Path, events: int, lifeline: int) -> subprocess.Popen[bytes]:
    # A file in the folder where a person works, such as random.py, is not the module of that name.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tunemill.resources.launcher", str(request), str(events), str(lifeline)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(os.environ),
        pass_fds=(events, lifeline),
        start_new_session=True,
    )


def _hand_over(request: str, child: subprocess.Popen[bytes]) -> None:
    """Give the child its call. One that is gone already will be explained by how it ended."""
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(request.encode())


class Lines:
    """Cuts what comes through a pipe into lines, each for `take` as soon as it has ended, and not far beyond.

    With `keep_ends` with their ends, of which a carriage return is one: progress bars write no other.
    """

    def __init__(self, take: Callable[[str], None], *, keep_ends: bool = False) -> None:
        self._take = take
        self._end = re.compile(rb"[\r\n]" if keep_ends else rb"\n")
        self._keep_ends = keep_ends
        self._pending = b""

    def add(self, chunk: bytes) -> None:
        """More has come."""
        self._pending += chunk
        start = 0
        for end in self._end.finditer(self._pending):
            self._give(self._pending[start : end.end() if self._keep_ends else end.start()])
            start = end.end()
        self._pending = self._pending[start:]
        if self._keep_ends and len(self._pending) > LONGEST_LINE:
            self.finish()

    def finish(self) -> None:
        """Nothing more will come."""
        if self._pending and self._keep_ends:
            self._give(self._pending)
            self._pending = b""

    def _give(self, line: bytes) -> None:
        self._take(line.decode(errors="replace"))


def _goes_on(call: Call, stop: threading.Event | None) -> Callable[[], None]:
    """What raises KeyboardInterrupt when `stop` is set, and LaunchError when the call's time is over."""
    end = None if call.seconds is None else time.monotonic() + call.seconds

    def check() -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if end is not None and time.monotonic() >= end:
            raise LaunchError(
                f"stopped after {call.seconds:.3g} s, which is all that it may take ({call.limit}). If it "
                f"does not hang, give it more; run again to go on from its last checkpoint, if any",
                crashed=True,
            )

    return check


def _forward(pipes: Mapping[int, Lines], child: subprocess.Popen[bytes], check: Callable[[], None]) -> None:
    """Pass on what comes through the pipes until the child has ended and they are empty.

    `check` is asked in between, and raises where it is to stop before.
    """
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            check()
            ended = child.poll() is not None
            ready = selector.select(0 if ended else POLL_SECONDS)
            if ended and not ready:
                break
            for key, _ in ready:
                chunk = os.read(key.fd, 1 << 16)
                if not chunk:
                    selector.unregister(key.fd)
                pipes[key.fd].add(chunk)
    for lines in pipes.values():
        lines.finish()
    child.wait()


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
            f"the stage's process was ended by {name}{hint}; run again to go on from its last checkpoint, if any",
            crashed=True,
        )
    return LaunchError(
        f"the stage's process ended with exit code {returncode}; the end of {output}:\n{tail}",
        crashed=MACHINE_FAILED.search(tail) is not None,
    )


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
    """The child's side: run the call that comes through standard input."""
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    call = Call(**json.loads(sys.stdin.buffer.read()))
    pipe = os.fdopen(events, "w", buffering=1)

    def sink(event: dict[str, Any]) -> None:
        pipe.write(json.dumps(event) + "\n")

    user_error = _named(call.user_error)
    try:
        # Of a training that takes five seconds, one would go into looking for garbage.
        import_to_stay(call.body.partition(":")[0])
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
