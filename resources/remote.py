"""What a remote source is: a commit of the Hub, or the checksums that the store of the objects gives.

Nothing is downloaded. What has no identity gets a new one at every look, so that nothing made from it is ever
taken from the store. fsspec and huggingface_hub are imported where they are needed: a plan without remote sources
goes without them.
"""

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from tunemill.resources.canonical import hash_document, hash_listing
from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.hub_errors import hub_reason, is_unreachable
from tunemill.resources.protocols import (
    HUB_DATASETS,
    HUB_FILES,
    HUB_MODELS,
    failures_of,
    folder_and_pattern,
    named_by,
    package_hint,
    protocol_of,
    without_credentials,
)

HUB_SECONDS = 30
# Protocols whose objects are hashed: they cost no transfer.
HASHED = ("memory", "file", "local")
# What file systems call the mark of an object's content, the best first.
MARKS = (
    "md5Hash",
    "crc32c",
    "Digest",
    "Content-MD5",
    "ETag",
    "etag",
    "md5",
    "checksum",
    "xet_hash",
    "blob_id",
    "sha",
)


def identify_remote(url: str) -> dict[str, str]:
    """The identity of a remote source that enters a key. Of the Hub, see `hub_repository`.

    `kind` is `object` (with the `checksum` of one object), `objects` (a folder or a pattern: the hash of its listing,
    names seen from the folder), or `unidentified` (with a `nonce`, where the server says nothing about the content).
    Raises StoreError when the source is not there.
    """
    protocol = protocol_of(url)
    files, path = file_system(url, protocol)
    errors = failures_of(protocol)
    try:
        return _objects(url, protocol, files, path)
    except FileNotFoundError as error:
        cause = f": {error.__cause__}" if error.__cause__ else ""
        raise StoreError(f"{url}: there is nothing{cause}") from error
    except errors as error:
        raise StoreError(f"{url}: cannot be looked at: {error}") from error


def describe_identity(identity: Mapping[str, str]) -> str:
    """A remote identity for a person."""
    if identity["kind"] == "unidentified":
        return "unknown content: the server gives no checksum, so results are made anew in every run"
    name = {"hub": "commit", HUB_FILES: "commit", "object": "checksum"}.get(identity["kind"], "listing")
    return f"{name} {identity.get('commit') or identity.get('checksum') or identity['sha256']}"


def hub_repository(
    url: str, revision: str | None, token: bool | None = None, *, with_files: bool = False
) -> tuple[str, dict[str, str]]:
    """The commit behind `revision` (a branch, tag or commit; main if None) of a repository of the Hub, and its files.

    Of each file the hash of its contents, empty where the Hub does not say; none at all unless `with_files`.
    `token`: true demands one, false sends none, None sends one if there is one.
    Raises StoreError when it is not there, and UnreachableError where the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    kind, name = _kind_and_name(url)
    wanted = revision or "main"
    try:
        found = HfApi(token=token).repo_info(
            name,
            repo_type=kind,
            revision=wanted,
            timeout=HUB_SECONDS,
            files_metadata=with_files,
            expand=None if with_files else ["sha"],
        )
    except (OSError, ValueError, HTTPError) as error:
        what = UnreachableError if is_unreachable(error) else StoreError
        raise what(hub_reason(error, kind, name, wanted)) from error
    files = (found.siblings or []) if with_files else []
    return str(found.sha), {item.rfilename: _hash_of(item) for item in files}


def hub_head(url: str, commit: str, file: str, token: bool | None) -> str:
    """The YAML at the head of a text file of a repository of the Hub; empty where it has none. Raises StoreError."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.repocard import REGEX_YAML_BLOCK
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    kind, name = _kind_and_name(url)
    place = hf_hub_url(name, file, repo_type=kind, revision=commit)
    try:
        answer = get_session().get(
            place, headers=build_hf_headers(token=token), timeout=HUB_SECONDS, follow_redirects=True
        )
        hf_raise_for_status(answer)
        text = answer.text
    except (OSError, ValueError, HTTPError) as error:
        raise StoreError(f"{url}: {file} cannot be read: {error}") from error
    found = REGEX_YAML_BLOCK.search(text)
    return found[2] if found else ""


def _kind_and_name(url: str) -> tuple[str, str]:
    kind = "dataset" if url.startswith(HUB_DATASETS) else "model"
    return kind, url.removeprefix(HUB_DATASETS).removeprefix(HUB_MODELS).strip("/")


def _hash_of(item: Any) -> str:
    """What the Hub says of the contents of a file: the SHA-256 of a large one, or else Git's hash."""
    if item.lfs is not None:
        return f"sha256:{item.lfs.sha256}"
    return f"git:{item.blob_id}" if item.blob_id else ""


def file_system(url: str, protocol: str) -> tuple[Any, str]:
    """fsspec's file system behind a URL, and the path in it. Raises StoreError where there is none."""
    import fsspec

    errors = failures_of(protocol)
    try:
        options = {"client_kwargs": {"trust_env": True}} if protocol in ("http", "https") else {}
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        raise StoreError(f"{url}: {protocol}:// cannot be read here{package_hint(protocol)}") from error
    except errors as error:
        raise StoreError(f"{url}: cannot be looked at: {error}") from error
    # A listing that is remembered would hide a change.
    files.invalidate_cache()
    return files, path


def _objects(url: str, protocol: str, files: Any, path: str) -> dict[str, str]:
    if protocol in ("http", "https"):
        # A server may mark everything that a path answers alike, whatever it is asked for.
        return _object(protocol, files, files.info(path), without_credentials(url).partition("?")[2])
    base, pattern = folder_and_pattern(files, path)
    if pattern is not None:
        listing = named_by(files, base, pattern)
    else:
        # Not every package can say what a whole bucket is.
        if "/" in path.strip("/") or files.isfile(path):
            info = files.info(path)
            if info["type"] == "file":
                return _object(protocol, files, info)
        listing, base = files.find(path, detail=True), path.rstrip("/")
    marks: dict[str, str] = {}
    for name, info in listing.items():
        if info["type"] != "file":
            continue
        identity = _object(protocol, files, info)
        if identity["kind"] == "unidentified":
            return identity
        marks[str(name).removeprefix(base).strip("/")] = identity["checksum"]
    if not marks:
        raise FileNotFoundError(url)
    return {"kind": "objects", "sha256": hash_listing(marks)}


def _object(protocol: str, files: Any, info: Mapping[str, Any], query: str = "") -> dict[str, str]:
    """The identity of one object, from what its file system knows of it, and what it was asked for."""
    if protocol in HASHED:
        with files.open(info["name"], "rb") as file:
            return {"kind": "object", "checksum": hashlib.file_digest(file, "sha256").hexdigest()}
    size = info.get("size")
    mark = next(((name, str(info[name])) for name in MARKS if info.get(name)), None)
    if mark is None and info.get("Last-Modified") and size is not None:
        mark = ("Last-Modified", str(info["Last-Modified"]))
    if mark is None:
        return {"kind": "unidentified", "nonce": secrets.token_hex(16)}
    document = {
        "mark": mark[0].lower(),
        "value": mark[1].strip('"'),
        "size": None if size is None else int(size),
    }
    asked = {"query": query} if query else {}
    return {"kind": "object", "checksum": hash_document(document | asked)}
