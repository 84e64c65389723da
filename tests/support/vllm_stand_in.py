"""A small HTTP server that speaks vLLM's protocol: the other side of what asks vLLM.

In a thread (`serving`) it answers with functions that it is given. As a program, put into a folder by
`stand_in_environment`, it is `vllm serve` of an environment of its own, and answers with sums of the prompt.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support import json_server as beside
from support.json_server import handler_of, json_server

VERSION = "0.32.0"


def sums(prompt: Sequence[int], asked: dict[str, Any]) -> list[int]:
    """Ids that follow from the prompt and the seed, up to a stop token."""
    found: list[int] = []
    while len(found) < asked["max_tokens"] and not set(found) & set(asked.get("stop_token_ids", ())):
        found.append(3 + (sum(prompt) + len(found) + asked.get("seed", 0)) % 400)
    return found


@dataclass
class StandIn:
    """A server. `answer(prompt, request)` gives ids; `log_p(prompt)` the log-probability of each but the first."""

    models: Sequence[str] = ("mine",)
    answer: Callable[[Sequence[int], dict[str, Any]], list[int]] = sums
    log_p: Callable[[Sequence[int]], list[float]] = lambda prompt: [-1.0] * (len(prompt) - 1)
    max_model_len: int = 4096
    version: str = VERSION
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""

    def get(self, path: str) -> tuple[int, Any]:
        """The version, and what is served."""
        models = [{"id": name, "max_model_len": self.max_model_len} for name in self.models]
        pages = {"/version": {"version": self.version}, "/v1/models": {"object": "list", "data": models}}
        return (200, pages[path]) if path in pages else (404, {})

    def post(self, _path: str, asked: dict[str, Any], key: str | None) -> tuple[int, Any]:
        """A completion of a model that is there."""
        self.asked.append(asked)
        self.keys.append(key)
        if asked["model"] not in self.models:
            return 404, {"error": {"message": f"no model {asked['model']}"}}
        return 200, self.reply(asked)

    def reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One completion."""
        prompt, ids = asked["prompt"], self.answer(asked["prompt"], asked)
        choice: dict[str, Any] = {"index": 0, "text": "", "prompt_token_ids": prompt, "token_ids": ids}
        if "prompt_logprobs" in asked:
            told = zip(prompt[1:], self.log_p(prompt), strict=True)
            choice["prompt_logprobs"] = [None, *({str(token): {"logprob": p}} for token, p in told)]
        return {"id": "1", "object": "text_completion", "choices": [choice]}


@contextmanager
def serving(state: StandIn) -> Iterator[StandIn]:
    """The server, in a thread."""
    with json_server(state) as state.url:
        yield state


def stand_in_environment(folder: Path, *, fails: str = "") -> Path:
    """The Python of an environment that has a vLLM: this file. One that `fails` says so and ends instead of serving."""
    packages = folder / "packages"
    (packages / "vllm" / "entrypoints" / "cli").mkdir(parents=True)
    program = packages / "vllm" / "entrypoints" / "cli" / "main.py"
    code = Path(__file__).read_text().split('"""', 2)[2]
    program.write_text(f"FAILS = {fails!r}\n{code}")
    (packages / "support").mkdir()
    shutil.copy(beside.__file__, packages / "support")
    named = packages / f"vllm-{VERSION}+cpu.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


def main(words: Sequence[str]) -> int:
    """`vllm serve FOLDER OPTIONS`, with a process beside it as vLLM has some; its environment is told in the log."""
    if fails := globals().get("FAILS"):
        print(f"ERROR 11-28 [core.py:1] {fails}")
        print("RuntimeError: Engine core initialization failed. See root cause above.")
        return 1
    beside = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    told = {"words": words, "environment": dict(os.environ), "pids": [os.getpid(), beside.pid]}
    print(json.dumps(told), flush=True)
    names = [words[words.index("--served-model-name") + 1]]
    if "--lora-modules" in words:
        names.append(words[words.index("--lora-modules") + 1].partition("=")[0])
    time.sleep(0.2)
    port = int(words[words.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), handler_of(StandIn(names))).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
