"""A small HTTP server that answers JSON with JSON, in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol


class Answers(Protocol):
    """What gives status and document of an answer. `key` is what a request's Authorization says."""

    def get(self, path: str) -> tuple[int, Any]: ...

    def post(self, path: str, asked: dict[str, Any], key: str | None) -> tuple[int, Any]: ...


def handler_of(state: Answers) -> type[BaseHTTPRequestHandler]:
    """What answers requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.tell(*state.get(self.path))

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.tell(*state.post(self.path, asked, self.headers["Authorization"]))

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
def json_server(state: Answers) -> Iterator[str]:
    """The URL of a server in a thread, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(state))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
