"""Where a stage's body runs: in this process, or in a child process of its own group.

A call is one JSON document (body, config slice, input folders, workspace), so every launcher runs the same
thing. `python -m tunemill.resources.launcher REQUEST EVENTS LIFELINE` is the child's side. It reads the call from its
standard input, for URLs in it may hold passwords, which no file keeps: the file REQUEST is a redacted copy, for people.
Events come back as JSON lines on a pipe; a second pipe is the child's lifeline: when the parent is gone, so is the
child's whole group. What the child prints goes through the parent into output.log, redacted as well.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from tunemill.resources.building import OUTPUT_FILE
from tunemill.resources.calls import Call, Sink, call_of, execute, named
from tunemill.resources.environment import child_environment, seeing
from tunemill.resources.errors import LaunchError
from tunemill.resources.imports import import_to_stay
from tunemill.resources.lines import Lines
from tunemill.resources.machine_failures import disk_full, is_full, machine_failed
from tunemill.resources.redaction import redacted, redacted_document, secrets_in

POLL_SECONDS = 0.2
GRACE_SECONDS = {signal.SIGINT: 3.0, signal.SIGTERM: 2.0, signal.SIGKILL: 5.0}
TAIL_LINES = 30


class Launcher(Protocol):
    """Runs a call to its end, sends its events to `sink`, raises LaunchError if it gives no result."""

    def __call__(self, call: Call, sink: Sink) -> None: ...


def in_this_process(call: Call, sink: Sink) -> None:
    """Run the body here: no isolation, no import cost. For tests and for debugging."""
    user_error = named(call.user_error)
    secrets = secrets_in(call.config, os.environ)
    try:
        execute(call, lambda event: sink(redacted_document(event, secrets)))
    except user_error as error:
        raise LaunchError(redacted(str(error), secrets), user=True) from None


def in_child(call: Call, sink: Sink, stop: threading.Event | None = None, gpu: str | None = None) -> None:
    """Run the body in a child process with its own process group; stop the whole group on any exception.

    `stop`, set by another thread, is as good as an interrupt. Of several GPUs it sees `gpu` alone.
    """
    logs = Path(call.workspace["logs"])
    secrets = secrets_in(call.config, os.environ)
    document, request = asdict(call), logs / "request.json"
    request.write_text(json.dumps(redacted_document(document, secrets), indent=1))
    failure: list[dict[str, Any]] = []

    def take(event: dict[str, Any]) -> None:
        ends = event["type"] in ("failed", "crashed")
        (failure.append if ends else sink)(redacted_document(event, secrets))

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
            child = _start(request, events_write, lifeline_read, gpu)
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


def _start(request: Path, events: int, lifeline: int, gpu: str | None) -> subprocess.Popen[bytes]:
    # A file in the folder where a person works, such as random.py, is not the module of that name.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tunemill.resources.launcher", str(request), str(events), str(lifeline)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=child_environment(seeing(gpu, os.environ)),
        pass_fds=(events, lifeline),
        start_new_session=True,
    )


def _hand_over(request: str, child: subprocess.Popen[bytes]) -> None:
    """Give the child its call. One that is gone already will be explained by how it ended."""
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as pipe:
        pipe.write(request.encode())


def _goes_on(call: Call, stop: threading.Event | None) -> Callable[[], None]:
    """What raises KeyboardInterrupt when `stop` is set, and LaunchError when the call's time is over."""
    end = None if call.seconds is None else time.monotonic() + call.seconds

    def check() -> None:
        if stop is not None and stop.is_set():
            raise KeyboardInterrupt
        if end is not None and time.monotonic() >= end:
            raise LaunchError(
                f"stopped after {call.seconds:g} s, which is all that it may take ({call.limit}). If it "
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
        is_users = failure[0]["type"] == "failed"
        return LaunchError(failure[0]["message"], user=is_users, crashed=not is_users and failure[0]["again"])
    tail = "\n".join(output.read_text(errors="replace").splitlines()[-TAIL_LINES:])
    if "No space left on device" in tail:
        return LaunchError(disk_full(output), user=True)
    if returncode < 0:
        name = signal.Signals(-returncode).name
        hint = " (often the machine ran out of memory)" if name == "SIGKILL" else ""
        return LaunchError(
            f"the stage's process was ended by {name}{hint}; run again to go on from its last checkpoint, if any",
            crashed=True,
        )
    return LaunchError(
        f"the stage's process ended with exit code {returncode}; the end of {output}:\n{tail}",
        crashed=machine_failed(tail),
    )


def _die_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(request: str, events: int, lifeline: int) -> int:
    """The child's side: run the call that comes through standard input."""
    threading.Thread(target=_die_with_parent, args=(lifeline,), daemon=True).start()
    call = call_of(json.loads(sys.stdin.buffer.read()))
    pipe = os.fdopen(events, "w", buffering=1)

    def sink(event: dict[str, Any]) -> None:
        pipe.write(json.dumps(event) + "\n")

    if call.ray is not None:
        from tunemill.resources.workers import in_workers

        return in_workers(call, call.ray, sink, Path(request))
    if call.processes > 1:
        from tunemill.resources.ranks import in_ranks

        return in_ranks(call, sink, Path(request))
    user_error = named(call.user_error)
    try:
        # Of a training that takes five seconds, one would go into looking for garbage.
        import_to_stay(call.body.partition(":")[0])
        execute(call, sink)
    except user_error as error:
        sink({"type": "failed", "message": str(error)})
        return 1
    except OSError as error:
        if not is_full(error):
            raise
        sink({"type": "failed", "message": disk_full(Path(request))})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
