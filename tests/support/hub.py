"""A server that speaks as much of the Hub's API as reading a dataset or a model needs, on folders of files.

Datasets and models can be made and committed to as well, by whoever has a token in `writers`. Of a dataset no file is
too large for a commit; large files of a model are uploaded before, each once, by their hashes.
Large files are kept as on the Hub: they are redirected to another host, and marked by their SHA-256.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = ".safetensors"


@dataclass
class Repository:
    """A repository: each commit is a set of files, each revision names a commit.

    Without its `token` a private one is not there, and of a `gated` one the files may not be had.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    revisions: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

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
    """A running server. `requests` are those that it got, `fetched` the large files: name, and first byte.

    Of a large file in `stalls` it sends so many bytes and no more; one in `damaged` comes with a byte changed.
    Not every server that speaks the API `tells_hashes`. `uploads` are the hashes of large files that came, which are in
    `objects` from then on; after `uploads_until_it_fails` of them no more are taken.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    models: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fetched: list[tuple[str, int]] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    tells_hashes: bool = True
    writers: set[str] = field(default_factory=set)
    uploads: list[str] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    uploads_until_it_fails: int | None = None
    stalled: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def model(self, name: str, token: str | None = None, *, gated: bool = False) -> Repository:
        """A new model repository, private with a token unless it is gated."""
        return self.models.setdefault(name, Repository(token=token, gated=gated))

    def repository(self, name: str, token: str | None = None) -> Repository:
        """A new dataset repository, private with a token."""
        return self.repositories.setdefault(name, Repository(token=token))

    def rename(self, old: str, new: str) -> None:
        """Give a repository another name; the old one goes on answering, with the new one's identity."""
        self.repositories[new] = self.repositories[old]
        self.renamed[old] = new

    def run(self, folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Python code in a process of its own that takes this server for the Hub; its caches are in `folder`."""
        return subprocess.run(
            [sys.executable, "-c", code],
            env=self.environment(folder) | environment,
            cwd=Path(__file__).resolve().parent.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def environment(self, folder: Path) -> dict[str, str]:
        """That of a process that takes this server for the Hub."""
        reached = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
        }
        return reached | {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(folder / "hf_home"),
            "HF_HUB_DISABLE_XET": "1",
        }

    def tunemill(self, folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command in a process of its own that takes this server for the Hub."""
        return subprocess.run(
            [sys.executable, "-m", "tunemill.pipelines.cli", *arguments],
            env=self.environment(folder) | environment,
            capture_output=True,
            text=True,
            timeout=300,
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

    def do_PUT(self) -> None:
        """A large file for the other host."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        assert "Authorization" not in self.headers, "a token is for the Hub alone"
        left = self.hub.uploads_until_it_fails
        if left is not None and len(self.hub.uploads) >= left:
            return self._refuse(403, "Forbidden")
        digest = hashlib.sha256(content).hexdigest()
        assert self.path == f"/upload/{digest}"
        self.hub.uploads.append(digest)
        self.hub.objects[digest] = content
        self.send_response(200)
        return self._end(b"")

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/api/agent-harnesses":
            # Once a day the library asks for a list of programs that may be calling it.
            return self._refuse(404, "EntryNotFound")
        self.hub.requests.append(f"{self.command} {path}")
        if path.startswith("/cdn/"):
            return self._large(path)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        of_datasets = path.startswith(("/datasets/", "/api/datasets/"))
        known = self.hub.repositories if of_datasets else self.hub.models
        plain = path.removeprefix("/api").removeprefix("/datasets" if of_datasets else "/models").strip("/")
        name = max((name for name in known if f"{plain}/".startswith(f"{name}/")), key=len, default=None)
        if name is None:
            return self._refuse(401, "RepoNotFound")
        repository = known[name]
        entered = not repository.token or self.headers.get("Authorization") == f"Bearer {repository.token}"
        if not entered and not repository.gated:
            return self._refuse(401, "RepoNotFound")
        if not entered and "/resolve/" in path:
            return self._refuse(403, "GatedRepo")
        action, _, rest = plain.removeprefix(name).strip("/").partition("/")
        if action == "branch":
            return self._branch(repository, rest)
        if action in ("preupload", "commit"):
            return self._write(repository, name, action, body, rest, of_datasets=of_datasets)
        return self._of(repository, name, action, rest, body)

    def _of(self, repository: Repository, name: str, action: str, rest: str, body: bytes) -> None:
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
            with_blobs = parse_qs(urlsplit(self.path).query).get("blobs", ["false"])[0].lower() == "true"
            with_blobs = with_blobs and self.hub.tells_hashes
            siblings = [_sibling(item, files[item], with_blobs) for item in files]
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
            return self._file(inner, files[inner], sha)
        return self._refuse(404, "EntryNotFound")

    def _create(self, asked: Mapping[str, Any]) -> None:
        token = self._writer()
        if token is None:
            return self._refuse(401 if "Authorization" not in self.headers else 403, "Forbidden")
        name = f"{asked['organization']}/{asked['name']}"
        token = token if asked["visibility"] == "private" else None
        kind = asked.get("type", "model")
        repository = (self.hub.repository if kind == "dataset" else self.hub.model)(name, token)
        repository.commit({".gitattributes": b"*.arrow filter=lfs"})
        return self._send({"url": f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"})

    def _branch(self, repository: Repository, branch: str) -> None:
        if self._writer() is None:
            return self._refuse(403, "Forbidden")
        repository.revisions.setdefault(branch, repository.revisions["main"])
        return self._send({})

    def _batch(self, asked: Mapping[str, Any]) -> None:
        """Where large files go, but for those that are there."""
        if self._writer() is None:
            return self._refuse(403, "Forbidden")
        port = self.hub.url.rpartition(":")[2]
        found = [
            item
            if item["oid"] in self.hub.objects
            else {**item, "actions": {"upload": {"href": f"http://localhost:{port}/upload/{item['oid']}"}}}
            for item in asked["objects"]
        ]
        return self._send({"objects": found, "transfer": "basic"})

    def _write(
        self, repository: Repository, name: str, action: str, body: bytes, branch: str, *, of_datasets: bool
    ) -> None:
        """Small files come in the commit itself, and every file of a dataset."""
        if self._writer() is None:
            return self._refuse(403, "Forbidden")
        if action == "preupload":
            names = [item["path"] for item in json.loads(body)["files"]]
            large = [not of_datasets and name.endswith(LARGE) for name in names]
            modes = [
                {"path": name, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}
                for name, is_large in zip(names, large, strict=True)
            ]
            return self._send({"files": modes})
        files = dict(repository.commits[repository.revisions[branch]])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
            elif value.get("parentCommit") not in (None, repository.revisions[branch]):
                return self._refuse(412, "PreconditionFailed")
            assert item["key"] in ("header", "file", "lfsFile", "deletedFile")
        sha = repository.commit(files, branch)
        url = f"{self.hub.url}/{'datasets/' if of_datasets else ''}{name}/commit/{sha}"
        return self._send({"commitUrl": url, "commitOid": sha, "success": True})

    def _writer(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return token if token in self.hub.writers else None

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

    def _file(self, name: str, content: bytes, sha: str) -> None:
        if name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            self.send_response(302)
            self.send_header("X-Repo-Commit", sha)
            self.send_header("X-Linked-Size", str(len(content)))
            self.send_header("X-Linked-ETag", f'"{digest}"')
            # Another name of this machine: another host, for whoever follows.
            self.send_header(
                "Location", f"http://localhost:{self.hub.url.rpartition(':')[2]}/cdn/{digest}/{name}"
            )
            return self._end(b"")
        return self._content(content, {"X-Repo-Commit": sha, "ETag": f'"{_oid(content)}"'})

    def _large(self, path: str) -> None:
        """The other host: a large file by its hash, whoever asks."""
        assert "Authorization" not in self.headers, "a token is for the Hub alone"
        digest, _, name = path.removeprefix("/cdn/").partition("/")
        kept = [files for item in self.hub.models.values() for files in item.commits.values()]
        content = next(
            data for files in kept for data in files.values() if hashlib.sha256(data).hexdigest() == digest
        )
        if name in self.hub.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        return self._content(content, {"ETag": f'"{digest}"'}, name)

    def _content(self, content: bytes, headers: Mapping[str, str], large: str | None = None) -> None:
        start = 0
        if wanted := self.headers.get("Range"):
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        if large is not None and self.command == "GET":
            self.hub.fetched.append((large, start))
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for header, value in headers.items():
            self.send_header(header, value)
        part = content[start:]
        if large not in self.hub.stalls or self.command != "GET":
            return self._end(part)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part[: self.hub.stalls[large] - start])
        self.wfile.flush()
        self.hub.stalled.set()
        # Until whoever asked is gone.
        self.connection.settimeout(60)
        with suppress(OSError):
            self.rfile.read(1)
        self.close_connection = True
        return None

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


def _sibling(name: str, content: bytes, with_blobs: bool) -> dict[str, Any]:
    if not with_blobs:
        return {"rfilename": name}
    found = {"rfilename": name, "size": len(content), "blobId": _oid(content)}
    if name.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 130}
    return found


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
