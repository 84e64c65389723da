"""Google's, Azure's and Oracle's object stores for packages that this project does not bring: else tests are skipped.

`pip install gcsfs adlfs ocifs gcp-storage-emulator` and `npm install -g azurite` bring all that is needed.
"""

import hashlib
import hmac
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from urllib.request import Request, urlopen

import pytest

# The account that every Azurite has, with its published key.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class CloudStore:
    """A running store with a bucket (or container) `rows`; `put` stores an object by its name in it."""

    scheme: str
    environment: dict[str, str]
    put: Callable[[str, bytes], None]
    bucket: str = "rows"

    def url(self, name: str) -> str:
        return f"{self.scheme}://{self.bucket}/{name}"


def need(*modules: str) -> None:
    """Skip the test where one of these modules is not installed."""
    for module in modules:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            pytest.skip(f"{module} is not installed")


@contextmanager
def google_store() -> Iterator[CloudStore]:
    """Google's JSON API, as gcp-storage-emulator has it."""
    need("gcsfs", "gcp_storage_emulator")
    from gcp_storage_emulator.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="rows")
    server.start()
    endpoint = f"http://127.0.0.1:{port}"

    def put(name: str, content: bytes) -> None:
        place = f"{endpoint}/upload/storage/v1/b/rows/o?uploadType=media&name={quote(name, safe='')}"
        request = Request(place, content, {"Content-Type": "application/octet-stream"}, method="POST")
        with urlopen(request, timeout=10):
            pass

    try:
        yield CloudStore("gs", {"STORAGE_EMULATOR_HOST": endpoint}, put)
    finally:
        server.stop()


@contextmanager
def azurite(folder: Path) -> Iterator[str]:
    """The endpoint of a running Azurite, in the words of both clients; `folder` is for its files."""
    program = os.environ.get("TUNEMILL_AZURITE") or shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite), and TUNEMILL_AZURITE names none")
    arguments = ["--blobPort", "0", "--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry"]
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "it was asked for"
            found = next(filter(None, (re.search(r"on (http://\S+)", line) for line in process.stdout)))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield found[1]
        finally:
            process.terminate()


def make_container(endpoint: str, name: str) -> None:
    """Make one in Azurite, as https://learn.microsoft.com/rest/api/storageservices says that a request is signed."""
    kind, date = "application/octet-stream", formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    said = "".join(f"{key}:{value}\n" for key, value in headers.items())
    place = f"/{ACCOUNT}/{name}"
    signed = f"PUT\n\n\n\n\n{kind}\n\n\n\n\n\n\n{said}/{ACCOUNT}{place}\nrestype:container"
    digest = hmac.digest(b64decode(ACCOUNT_KEY), signed.encode(), "sha256")
    headers |= {"Content-Type": kind, "Authorization": f"SharedKey {ACCOUNT}:{b64encode(digest).decode()}"}
    request = Request(f"{endpoint}{place}?restype=container", b"", headers, method="PUT")
    with urlopen(request, timeout=10):
        pass


@contextmanager
def azure_store(folder: Path) -> Iterator[CloudStore]:
    """Azure's blob service, as Azurite has it; `folder` is for its files."""
    need("adlfs")
    from azure.storage.blob import BlobServiceClient

    with azurite(folder) as endpoint:
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
            f"BlobEndpoint={endpoint}/{ACCOUNT};"
        )
        client = BlobServiceClient.from_connection_string(connection).create_container("rows")

        def put(name: str, content: bytes) -> None:
            client.upload_blob(name, content, overwrite=True)

        yield CloudStore("az", {"AZURE_STORAGE_CONNECTION_STRING": connection}, put)


class _OracleHandler(BaseHTTPRequestHandler):
    """The few calls of Oracle's object storage that reading takes: a list, an object, and what is known of it."""

    objects: dict[str, bytes]

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        match = re.fullmatch(r"/n/tests/b/rows/o(?:/(.*))?", url.path)
        if match is None:
            self._send(404, {}, b'{"code":"BucketNotFound","message":"there is no such bucket"}')
        elif match[1] is None:
            self._send(200, {}, json.dumps(self._listing(dict(parse_qsl(url.query)))).encode())
        elif (content := self.objects.get(unquote(match[1]))) is None:
            self._send(404, {}, b'{"code":"ObjectNotFound","message":"there is no such object"}')
        else:
            first, last = 0, len(content)
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(asked[1]), min(int(asked[2] or last) + 1, last)
            known = {
                **_marks(content),
                "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
                "accept-ranges": "bytes",
                "version-id": "1",
                "storage-tier": "Standard",
            }
            self._send(206 if asked else 200, known, content[first:last])

    def _listing(self, query: dict[str, str]) -> dict[str, object]:
        prefix, mark = query.get("prefix", ""), query.get("delimiter")
        names = sorted(name for name in self.objects if name.startswith(prefix))
        deep = [name for name in names if mark and mark in name[len(prefix) :]]
        folders = {prefix + name[len(prefix) :].partition("/")[0] + "/" for name in deep}
        found = [
            {"name": name, "size": len(self.objects[name]), **_marks(self.objects[name])}
            for name in names
            if name not in deep
        ]
        return {"objects": found, "prefixes": sorted(folders)}

    def _send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header({"md5": "content-md5"}.get(name, name), value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _marks(content: bytes) -> dict[str, str]:
    digest = hashlib.md5(content, usedforsecurity=False)
    return {"etag": digest.hexdigest(), "md5": b64encode(digest.digest()).decode()}


@contextmanager
def oracle_store(folder: Path) -> Iterator[CloudStore]:
    """Oracle's object storage as far as reading goes; `folder` is for a key and a config of their client."""
    need("ocifs")
    import fsspec
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(pem)
    (folder / "config").write_text(
        f"[DEFAULT]\nuser=ocid1.user.oc1..a\ntenancy=ocid1.tenancy.oc1..a\nregion=us-ashburn-1\n"
        f"fingerprint={':'.join(['00'] * 16)}\nkey_file={folder / 'key.pem'}\n"
    )
    objects: dict[str, bytes] = {}
    handler = type("Handler", (_OracleHandler,), {"objects": objects})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    # What FSSPEC_OCI in the environment would say to another process.
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    environment = {"OCIFS_IAM_TYPE": "api_key", "OCIFS_CONFIG_LOCATION": str(folder / "config")}
    fsspec.config.conf["oci"] = {"config_kwargs": {"service_endpoint": endpoint}}
    try:
        yield CloudStore("oci", environment, objects.__setitem__, "rows@tests")
    finally:
        del fsspec.config.conf["oci"]
        server.shutdown()
        thread.join()
        server.server_close()
