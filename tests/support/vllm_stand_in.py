"""A small HTTP server that speaks vLLM's protocol: the other side of what asks vLLM.

In a thread (`serving`) it answers with functions that it is given. As a program, put into a folder by
`stand_in_environment`, it is `vllm serve` of an environment of its own, and answers with sums of the prompt.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

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

    def reply(self, asked: dict[str, Any]) -> dict[str, Any]:
        """One completion."""
        prompt, ids = asked["prompt"], self.answer(asked["prompt"], asked)
        choice: dict[str, Any] = {"index": 0, "text": "", "prompt_token_ids": prompt, "token_ids": ids}
        if "prompt_logprobs" in asked:
            told = zip(prompt[1:], self.log_p(prompt), strict=True)
            choice["prompt_logprobs"] = [None, *({str(token): {"logprob": p}} for token, p in told)]
        return {"id": "1", "object": "text_completion", "choices": [choice]}


def handler_of(state: StandIn) -> type[BaseHTTPRequestHandler]:
    """What answers requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = [{"id": name, "max_model_len": state.max_model_len} for name in state.models]
            pages = {"/version": {"version": state.version}, "/v1/models": {"object": "list", "data": models}}
            self.tell(200 if self.path in pages else 404, pages.get(self.path, {}))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.asked.append(asked)
            state.keys.append(self.headers["Authorization"])
            if asked["model"] not in state.models:
                return self.tell(404, {"error": {"message": f"no model {asked['model']}"}})
            return self.tell(200, state.reply(asked))

        def tell(self, status: int, document: Any) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving(state: StandIn) -> Iterator[StandIn]:
    """The server, in a thread."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def stand_in_environment(folder: Path, *, fails: str = "") -> Path:
    """The Python of an environment that has a vLLM: this file. One that `fails` says so and ends instead of serving."""
    packages = folder / "packages"
    (packages / "vllm" / "entrypoints" / "cli").mkdir(parents=True)
    program = packages / "vllm" / "entrypoints" / "cli" / "main.py"
    code = Path(__file__).read_text().split('"""', 2)[2]
    program.write_text(f"FAILS = {fails!r}\n{code}")
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
