"""A place of objects that answers, and refuses: what is said is what is wrong, and not that it cannot be reached."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.objects import objects_at

ANSWERS = [
    (400, "ExpiredToken", "have expired; get new ones (ExpiredToken)"),
    (403, "ExpiredToken", "have expired"),
    (403, "RequestTimeTooSkewed", "clock"),
    (301, "PermanentRedirect", "set AWS_REGION"),
    (400, "AuthorizationHeaderMalformed", "set AWS_REGION"),
    (403, "AccessDenied", "lets nobody in with the credentials of this environment (AccessDenied)"),
    (403, "InvalidAccessKeyId", "lets nobody in"),
    (404, "NoSuchBucket", "there is no such bucket"),
    (501, "NotImplemented", "write on a condition"),
    (409, "ConditionalRequestConflict", ""),
    (507, "InsufficientStorage", ""),
]


@pytest.fixture
def answer(monkeypatch):
    """Sets what the server of the store answers."""
    now = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_PUT()

        def do_PUT(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f"<?xml version='1.0'?><Error><Code>{now['code']}</Code></Error>".encode()
            self.send_response(now["status"])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    for name, value in (
        ("ACCESS_KEY_ID", "key"),
        ("SECRET_ACCESS_KEY", "very-secret"),
        ("DEFAULT_REGION", "x"),
    ):
        monkeypatch.setenv(f"AWS_{name}", value)
    yield lambda status, code: now.update(status=status, code=code)
    server.shutdown()
    server.server_close()


def test_what_is_refused_is_said(answer, tmp_path):
    objects = objects_at("s3://team/x")
    (tmp_path / "file").write_text("content")
    for status, code, words in ANSWERS:
        answer(status, code)
        asks = [
            lambda: objects.get("a"),
            lambda: objects.create("a", b""),
            lambda: objects.replace("a", b"", "mark"),
            lambda: list(objects.listing("a/")),
            lambda: objects.send("a", tmp_path / "file"),
        ]
        # Tried again with pauses: the first alone shows what comes of it.
        for ask in asks if status < 500 else asks[:1]:
            with pytest.raises(StoreError) as caught:
                ask()
            assert words in str(caught.value), (status, code, str(caught.value))
            assert isinstance(caught.value, UnreachableError) == (not words)
            assert "very-secret" not in str(caught.value)
