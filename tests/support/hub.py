"""A server that speaks as much of the Hub's API as reading a dataset needs, on folders of files."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Repository:
    """A dataset repository: each commit is a set of files, each revision names a commit."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    token: str | None = None

    def commit(self, files: Mapping[str, bytes], revision: str = "main") -> str:
        """Add a commit and move the revision to it. Returns its SHA."""
        listing = repr(sorted((name, hashlib.sha256(data).hexdigest()) for name, data in files.items()))
        sha = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
        self.commits[sha] = dict(files)
        self.revisions[revision] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.revisions.get(revision)


@dataclass
class Hub:
    """A running server. `requests` are those that it got."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def repository(self, name: str, token: str | None = None) -> Repository:
        """A new dataset repository, private with a token."""
        return self.repositories.setdefault(name, Repository(token=token))

    def rename(self, old: str, new: str) -> None:
        """Give a repository another name; the old one goes on answering, with the new one's identity."""
        self.repositories[new] = self.repositories[old]
        self.renamed[old] = new

    def run(self, folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Python code in a process of its own that takes this server for the Hub; its caches are in `folder`."""
        reached = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
        }
        reached |= {"HF_ENDPOINT": self.url, "HF_HOME": str(folder / "hf_home"), "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [sys.executable, "-c", code],
            env=reached | environment,
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        name = next((name for name in self.hub.repositories if f"datasets/{name}/" in f"{path}/"), None)
        if name is None:
            return self._refuse(401, "RepoNotFound")
        repository = self.hub.repositories[name]
        if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
            return self._refuse(401, "RepoNotFound")
        action, _, rest = path.split(f"datasets/{name}", 1)[1].strip("/").partition("/")
        known = [
            item for item in (*repository.commits, *repository.revisions) if f"{rest}/".startswith(f"{item}/")
        ]
        revision = max(known, key=len, default="main" if not action else None)
        if revision is None:
            return self._refuse(404, "RevisionNotFound")
        sha = repository.resolve(revision)
        assert sha is not None
        inner = rest.removeprefix(revision).strip("/")
        files = repository.commits[sha]
        if action in ("", "revision"):
            siblings = [{"rfilename": item} for item in files]
            return self._send(
                {
                    "id": self.hub.renamed.get(name, name),
                    "sha": sha,
                    "private": bool(repository.token),
                    "siblings": siblings,
                }
            )
        if action == "tree":
            return self._tree(files, inner)
        if action == "paths-info":
            asked = _asked(body, self.headers["Content-Type"])
            return self._send([entry for item in asked for entry in _entries(files, item)])
        if action == "resolve" and inner in files:
            return self._file(files[inner], sha)
        return self._refuse(404, "EntryNotFound")

    def _tree(self, files: Mapping[str, bytes], inner: str) -> None:
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in (
            "true",
            "1",
        )
        prefix = f"{inner}/" if inner else ""
        below = [item for item in files if item.startswith(prefix)]
        if not below:
            return self._refuse(404, "EntryNotFound")
        names = {
            prefix + "/".join(item.removeprefix(prefix).split("/")[:depth])
            for item in below
            for depth in range(1, item.removeprefix(prefix).count("/") + 2)
            if recursive or depth == 1
        }
        return self._send([entry for item in sorted(names) for entry in _entries(files, item)])

    def _file(self, content: bytes, sha: str) -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        part = content[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("X-Repo-Commit", sha)
        self.send_header("ETag", f'"{_oid(content)}"')
        self._end(part)

    def _send(self, document: Any) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self._end(json.dumps(document).encode())

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self._end(b"{}")

    def _end(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\x00" % len(content) + content, usedforsecurity=False).hexdigest()


def _entries(files: Mapping[str, bytes], name: str) -> list[dict[str, Any]]:
    if name in files:
        return [{"type": "file", "path": name, "size": len(files[name]), "oid": _oid(files[name])}]
    inside = any(item.startswith(f"{name}/") for item in files)
    return [{"type": "directory", "path": name, "size": 0, "oid": _oid(name.encode())}] if inside else []


def _asked(body: bytes, content_type: str) -> list[str]:
    if content_type.startswith("application/json"):
        paths = json.loads(body)["paths"]
        return [paths] if isinstance(paths, str) else list(paths)
    return parse_qs(body.decode())["paths"]


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A running Hub without repositories."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
