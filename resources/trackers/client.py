"""The training's side of a tracker: messages go to its process, and nothing that happens there comes back but words."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.trackers.table import TRACKERS

# A tracker that is so many messages behind has stopped listening.
LONGEST_QUEUE = 10_000
LAST_LINES = 5

Message = dict[str, Any]


class TrackerProcess:
    """One tracker's process. No method raises or waits for it, but `finish`, which waits for so long at most."""

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        run: Mapping[str, Any],
        say: Callable[[str], None],
        opened: Callable[[str], None],
    ) -> None:
        """`say` is told what a person should know, `opened` the tracker's own name of the run."""
        self._title = TRACKERS[name].title
        self._secrets = secrets_in(dict(settings), os.environ)
        self._say = say
        self._opened = opened
        self._gone, self._lock = False, threading.Lock()
        self._messages: queue.Queue[Message | None] = queue.Queue(LONGEST_QUEUE)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tunemill.resources.trackers.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._errors: deque[str] = deque(maxlen=LAST_LINES)
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._write, self._read_answers, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()
        self.send({"type": "open", "tracker": name, "settings": dict(settings), "run": dict(run)})

    def send(self, message: Message) -> None:
        """Put a message on its way."""
        if self._gone:
            return
        try:
            self._messages.put_nowait(message)
        except queue.Full:
            self._give_up("takes no more figures; it was left alone, and the training goes on without it")

    def finish(
        self, succeeded: bool, summary: Mapping[str, Any], artifact: str | None, seconds: float
    ) -> None:
        """Tell that the training has ended, and wait `seconds` at most for the tracker to write that down."""
        self.send({"type": "finish", "succeeded": succeeded, "summary": dict(summary), "artifact": artifact})
        self.send_end()
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._give_up(f"has not finished within {seconds:g} s; it was stopped")
        else:
            self._explain(code)
        finally:
            self.stop()

    def send_end(self) -> None:
        """Nothing more will come."""
        with suppress(queue.Full):
            self._messages.put_nowait(None)

    def stop(self) -> None:
        """End its whole process group, whatever it does."""
        with self._lock:
            self._gone = True
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _give_up(self, why: str) -> None:
        with self._lock:
            first, self._gone = not self._gone, True
        if first:
            self._say(f"{self._title} {why}")

    def _explain(self, code: int) -> None:
        if code != 0:
            self._threads[-1].join(1.0)
            self._give_up(f"failed: {self._last_words()}. The training is not touched by that")

    def _last_words(self) -> str:
        lines = [line for line in self._errors if line.strip()]
        return redacted(lines[-1].strip() if lines else "it said nothing", self._secrets)

    def _write(self) -> None:
        pipe = self._process.stdin
        assert pipe is not None, "it is a pipe"
        with suppress(OSError, ValueError), pipe:
            while (message := self._messages.get()) is not None:
                pipe.write((json.dumps(message, default=str) + "\n").encode())
                pipe.flush()

    def _read_answers(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None, "it is a pipe"
        for line in pipe:
            with suppress(ValueError, KeyError, TypeError):
                answer = json.loads(line)
                self._opened(answer["run_id"])
                self._say(f"{self._title}: {redacted(answer['place'], self._secrets)}")
        self._explain(self._process.wait())

    def _read_errors(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None, "it is a pipe"
        for line in pipe:
            self._errors.append(line.decode(errors="replace"))
