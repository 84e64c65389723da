"""Commands that run on a Ray cluster, sent there over its Jobs API, with a folder of files."""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunemill.resources.errors import StoreError

SCHEME = "ray://"
# Where the Jobs API listens, on the port of Ray's dashboard.
PORT = 8265
NEEDED = "--on ray:// needs Ray, which is not installed here: pip install 'tunemill[ray]'"
LOOK_SECONDS = 0.5
# What Ray says, and for how long at most, of a cluster whose head has only just started.
NO_AGENT, AGENT_SECONDS = "No available agent", 60.0
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True)
class Sent:
    """A command that was sent: where to, its number there, and what it asks for, as whoever sent it tells them apart.

    The file of it outlives this process.
    """

    address: str
    number: str
    asks: str = ""

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, file: Path) -> "Sent | None":
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return None


class Jobs:
    """The Jobs API of a cluster. Raises StoreError where Ray is not installed here, or does not answer there."""

    def __init__(self, address: str) -> None:
        host = address.removeprefix(SCHEME).rstrip("/")
        self.address = host if ":" in host.rpartition("]")[2] else f"{host}:{PORT}"
        # What git leaves out may well be data. Ray reads it where it is imported.
        os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
        try:
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(f"http://{self.address}")
        except ImportError as error:
            raise StoreError(f"{NEEDED} ({error})") from None
        except (OSError, RuntimeError) as error:
            raise StoreError(
                f"--on: nobody answers at http://{self.address}, where Ray's dashboard should listen: {error}"
            ) from None

    def submit(
        self,
        command: str,
        folder: Path,
        leave_out: Sequence[str],
        gpus: float,
        environment: dict[str, str],
        asks: str,
    ) -> Sent:
        """Send a command, and the folder that it runs in."""
        runtime: dict[str, Any] = {
            "working_dir": str(folder),
            "excludes": list(leave_out),
            "env_vars": environment,
        }
        until = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                number = self._client.submit_job(
                    entrypoint=command, runtime_env=runtime, entrypoint_num_gpus=gpus or None
                )
            except (OSError, RuntimeError, ValueError) as error:
                if NO_AGENT in str(error) and time.monotonic() < until:
                    time.sleep(LOOK_SECONDS)
                    continue
                raise StoreError(f"--on: the cluster at {self.address} takes no such job: {error}") from None
            return Sent(self.address, str(number), asks)

    def state(self, sent: Sent) -> str:
        """Ray's word for how it stands; GONE where the cluster knows nothing of it.

        Raises StoreError where it does not answer.
        """
        try:
            return str(self._client.get_job_status(sent.number).value)
        except RuntimeError:
            return "GONE"
        except OSError as error:
            raise StoreError(
                f"--on: {sent.address} no longer answers ({error}); {sent.number} may go on there: the same command "
                f"shows it again"
            ) from None

    def follow(self, sent: Sent, show: Callable[[str], None]) -> str:
        """Show what it prints until it has ended; how it ended. Ctrl-C ends it there too."""

        async def tail() -> None:
            async for text in self._client.tail_job_logs(sent.number):
                show(text)

        try:
            while (state := self.state(sent)) not in (*ENDED, "GONE"):
                # The connection may be lost, and the job goes on.
                with contextlib.suppress(RuntimeError, OSError):
                    asyncio.run(tail())
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            self._client.stop_job(sent.number)
            raise
        return state
