"""Real servers of objects: an S3 server (moto's) and a web server of a folder."""

import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec
import pytest

KEY, SECRET = "key-for-tests", "secret-for-tests"


class Reachable(Protocol):
    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach it."""


S = TypeVar("S", bound=Reachable)


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server with one bucket."""

    endpoint: str
    bucket: str
    client: Any
    stop: Callable[[], None] = lambda: None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to reach the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, name: str, content: bytes) -> str:
        """Store an object. Returns its URL."""
        self.client.put_object(Bucket=self.bucket, Key=name, Body=content)
        return self.url(name)

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=name)

    def url(self, name: str) -> str:
        return f"s3://{self.bucket}/{name}"


@contextmanager
def s3_server(bucket: str = "rows", address: str = "127.0.0.1") -> Iterator[ObjectStore]:
    """A running S3 server at an address of this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=address, port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        endpoint = f"http://127.0.0.1:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        yield ObjectStore(endpoint, bucket, client, server.stop)
    finally:
        server.stop()


@contextmanager
def reached(server: S, schemes: Iterable[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[S]:
    """The server, which fsspec in this process takes for the store behind these schemes."""
    known = [fsspec.get_filesystem_class(scheme) for scheme in schemes]
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    for files in known:
        files.clear_instance_cache()
    try:
        yield server
    finally:
        for files in known:
            files.clear_instance_cache()


class _Handler(SimpleHTTPRequestHandler):
    """`told` are the headers about a file's content that the server sends."""

    def __init__(self, *args: Any, told: frozenset[str], **options: Any) -> None:
        self.told = told
        super().__init__(*args, **options)

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified" or keyword in self.told:
            super().send_header(keyword, value)

    def end_headers(self) -> None:
        path = Path(self.translate_path(self.path))
        if "ETag" in self.told and path.is_file():
            state = path.stat()
            self.send_header("ETag", f'"{state.st_mtime_ns:x}-{state.st_size:x}"')
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def web_server(folder: Path, *told: str) -> Iterator[str]:
    """A running web server of a folder; `told` of ETag and Last-Modified are sent. Yields its URL."""
    handler = functools.partial(_Handler, directory=str(folder), told=frozenset(told))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
