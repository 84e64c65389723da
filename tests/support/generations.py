"""A server that takes objects as Google's store does: each version has a number, which a write may name."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    """Objects by path: number of the version, and content."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, tuple[int, bytes]]

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        before, _ = self.objects.get(self.path, (0, b""))
        if int(self.headers.get("x-goog-if-generation-match", before)) != before:
            self._answer(412)
            return
        self.objects[self.path] = (before + 101, content)
        self._answer(200)

    def do_GET(self) -> None:
        self._answer(200 if self.path in self.objects else 404)

    def do_HEAD(self) -> None:
        self.do_GET()

    def _answer(self, status: int) -> None:
        number, content = self.objects.get(self.path, (0, b""))
        self.send_response(status)
        for name, value in {
            "ETag": f'"{number:x}"',
            "x-goog-generation": str(number),
            "Last-Modified": "Sat, 28 Nov 2026 17:00:00 GMT",
            "Content-Length": str(len(content)),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def google_server() -> Iterator[str]:
    """The URL of a running one."""
    handler = type("Handler", (_Handler,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
