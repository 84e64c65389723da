"""Emulators of Google's and Azure's object stores, which are no packages of this project: skips where they are absent.

`pip install gcsfs adlfs gcp-storage-emulator` and `npm install -g azurite` bring all that is needed.
"""

import importlib.util
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
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

    def url(self, name: str) -> str:
        return f"{self.scheme}://rows/{name}"


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
def azure_store(folder: Path) -> Iterator[CloudStore]:
    """Azure's blob service, as Azurite has it; `folder` is for its files."""
    need("adlfs")
    from azure.storage.blob import BlobServiceClient

    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("azurite-blob is not installed (npm install -g azurite)")
    arguments = ["--blobPort", "0", "--location", str(folder), "--skipApiVersionCheck", "--disableTelemetry"]
    with subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "it was asked for"
            found = next(filter(None, (re.search(r"on (http://\S+)", line) for line in process.stdout)))
            connection = (
                f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
                f"BlobEndpoint={found[1]}/{ACCOUNT};"
            )
            client = BlobServiceClient.from_connection_string(connection).create_container("rows")

            def put(name: str, content: bytes) -> None:
                client.upload_blob(name, content, overwrite=True)

            yield CloudStore("az", {"AZURE_STORAGE_CONNECTION_STRING": connection}, put)
        finally:
            process.terminate()
