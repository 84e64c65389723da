"""A web server of a folder that lets in who knows user, password and token, and tells everybody what was asked for."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit


@dataclass
class Guarded:
    """A running server. `mode` says what becomes of the contents: ok, refused, cut, or hidden (no such file)."""

    folder: Path
    password: str
    token: str
    port: int = 0
    mode: str = "ok"
    asked: list[str] = field(default_factory=list)

    def url(self, name: str, more: str = "") -> str:
        """The URL of a file, with all that lets one in."""
        who = f"reader:{quote(self.password, safe='')}"
        return f"http://{who}@127.0.0.1:{self.port}/{name}?token={self.token}{more}"

    def secrets(self) -> list[str]:
        """Every spelling of what lets one in."""
        basic = base64.b64encode(f"reader:{self.password}".encode()).decode()
        return [self.password, quote(self.password, safe=""), self.token, basic]


class _Handler(BaseHTTPRequestHandler):
    server_state: Guarded

    def do_HEAD(self) -> None:
        self._answer(with_content=False)

    def do_GET(self) -> None:
        self._answer(with_content=True)

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, *, with_content: bool) -> None:
        state = self.server_state
        url = urlsplit(self.path)
        state.asked.append(self.command)
        basic = base64.b64encode(f"reader:{state.password}".encode()).decode()
        is_known = self.headers.get("Authorization") == f"Basic {basic}"
        if (
            not is_known
            or parse_qs(url.query).get("token") != [state.token]
            or (state.mode == "refused" and with_content)
        ):
            return self.send_error(401, f"No entry to {self.path}", self.headers.get("Authorization"))
        file = state.folder / url.path.strip("/")
        if not file.is_file() or (state.mode == "hidden" and with_content):
            return self.send_error(404, f"Nothing at {self.path}")
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if with_content:
            self.wfile.write(content[: len(content) // 2] if state.mode == "cut" else content)
        return None


@contextmanager
def guarded_server(folder: Path, password: str, token: str) -> Iterator[Guarded]:
    """A running server of the folder's files."""
    state = Guarded(folder, password, token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"server_state": state}))
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
