"""Servers of OpenEnv, by its own helper: an environment whose actions are of one kind, and one with named tools."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

# The toy environment of `support.environments`, on a server; it writes down how it was reset.
COUNTING = '''
import os, sys
import uvicorn
from openenv.core.env_server import Action, Environment, Observation, State, create_app


class AddAction(Action):
    """Add a number."""

    n: int


class Sum(Observation):
    said: str


class Counter(Environment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, start=0, **other):
        if start == 77:
            raise RuntimeError("nobody is here")
        self.total, self.seed = start, seed
        with open("resets", "a") as file:
            file.write(f"{seed} {start} {sorted(other)}\\n")
        return Sum(said=f" {start}")

    def step(self, action, timeout_s=None, **other):
        if self.total == 98:
            os._exit(3)
        if action.n == 3:
            raise ValueError("3 is too much")
        self.total += action.n
        return Sum(said=str(self.total), reward=action.n, done=self.total % 5 == 4)

    @property
    def state(self):
        return State()


app = create_app(Counter, AddAction, Sum, env_name="counter", max_concurrent_envs=int(sys.argv[2]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
'''
NAMED = '''
import sys
import uvicorn
from fastmcp import FastMCP
from openenv.core.env_server import CallToolAction, CallToolObservation, Observation, State, create_app
from openenv.core.env_server.mcp_environment import MCPEnvironment


class Words(MCPEnvironment):
    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server = FastMCP("words")

        @server.tool
        def double(n: int) -> int:
            """Twice a number."""
            return n * 2

        super().__init__(server)

    def reset(self, seed=None, episode_id=None, **other):
        self.calls = 0
        return Observation()

    def _step_impl(self, action, timeout_s=None, **other):
        return Observation()

    def step(self, action, timeout_s=None, **other):
        found = super().step(action, timeout_s, **other)
        return self.counted(action, found)

    async def step_async(self, action, timeout_s=None, **other):
        return self.counted(action, await super().step_async(action, timeout_s, **other))

    def counted(self, action, found):
        if isinstance(action, CallToolAction):
            self.calls += 1
            found.reward, found.done = float(self.calls), self.calls == 3
        return found

    @property
    def state(self):
        return State()


app = create_app(Words, CallToolAction, CallToolObservation, env_name="words", max_concurrent_envs=int(sys.argv[2]))
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning")
'''
STARTING_SECONDS = 60


@contextmanager
def server_of(source: str, folder: Path, packages: str, room: int = 64) -> Iterator[str]:
    """The address of a server of this environment, which has room for so many sessions, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "server.py").write_text(source)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "server.py", str(port), str(room)],
        cwd=folder, env={**os.environ, "PYTHONPATH": packages}, start_new_session=True,
    )  # fmt: skip
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + STARTING_SECONDS
    try:
        while not _answers(url):
            assert process.poll() is None and time.monotonic() < until, "the server has not started"
            time.sleep(0.2)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False
