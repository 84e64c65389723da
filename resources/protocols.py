"""What stages and the store must know alike: names of files, schemes, packages behind protocols, credentials.

Imports nothing heavy.

With `hub_errors.py` one of the two files of `resources/` that stages may import.
"""

import re
from importlib import import_module
from typing import Any
from urllib.parse import unquote_plus

LINEAGE_FILE = "tunemill_lineage.json"
# What listens there is reached by nobody else.
THIS_MACHINE = "127.0.0.1"
# The card of a repository of the Hub, or of a folder that is like one.
CARD = "README.md"
# In the lineage of a published model: a digest of its files, and the names of all with their hashes, of the signature
# without one. The lineage itself is not among them.
AS_PUBLISHED = "as_published"
# What lies beside the files of a published model: its bill of materials, and its signature.
BOM_FILE = "tunemill_bom.cdx.json"
SIGNATURE_FILE = "model.sig"
# The folder, in the artifact, that is published as it is.
PUBLISHED_FOLDER = "files"
# What no signature is about: itself, and what git, the Hub and its client leave in a folder. None of it is published.
UNSIGNED = (SIGNATURE_FILE, ".cache/huggingface", ".git", ".gitattributes")
# What signs and verifies: model-signing imports the second one, and does not say so where pip looks.
SIGNING = ("model_signing", "OpenSSL")
# The pipeline whose nodes are folders that were registered by hand.
ADOPTED = "adopted"
HUB = "hf://"
HUB_DATASETS, HUB_MODELS = f"{HUB}datasets/", f"{HUB}models/"
# The kind of an identity: the needed files of a repository of the Hub.
HUB_FILES = "files of the hub"
WILDCARDS = re.compile(r"[*?\[]")
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "oci": "ocifs",
    "http": "aiohttp",
    "https": "aiohttp",
}
# What these packages raise that is no OSError, as `module:class`.
FAILURES = {
    "s3fs": ("botocore.exceptions:BotoCoreError", "botocore.exceptions:ClientError"),
    "gcsfs": ("gcsfs.retry:HttpError", "google.auth.exceptions:GoogleAuthError", "aiohttp:ClientError"),
    "adlfs": ("azure.core.exceptions:AzureError",),
    "ocifs": ("oci.exceptions:ClientError", "oci.exceptions:ServiceError"),
    "aiohttp": ("aiohttp:ClientError",),
}
# `scheme://`, then who one is, then the rest. A path made of a URL has lost slashes.
USER_IN_URL = re.compile(
    r"(?P<protocol>\b[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/{1,3})(?P<user>[^\s/?#\"<>]+)@"
)
# A password with a slash in it: what stands behind the colon is no port.
ODD_USER_IN_URL = re.compile(
    r"(?P<protocol>\b[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>/{1,3})"
    r"(?P<user>[^\s/?#\[\"<>:@]+:(?!\d*(?:[/?#\s'\")\]]|$))[^\s\"<>@]*)@"
)
# What ends a sentence is no part of the value.
PARAMETER = re.compile(
    r"""(?P<before>[?&;#])(?P<name>[^\s=&;?#'"<>]+)=(?P<value>[^\s&;#'"<>]*?)(?=[:,.)\]]*(?:[\s&;#'"<>]|$))"""
)
# Here a name before the @ is that of a container.
CONTAINERS = frozenset({"abfs", "abfss", "adl", "az", "oci", "wasb", "wasbs"})
SECRET_PARTS = (
    "accesskey", "apikey", "auth", "credential", "passphrase", "passwd", "password", "secret", "sessionid", "signature",
    "token",
)  # fmt: skip
SECRET_WORDS = frozenset({"hmac", "jwt", "key", "pass", "pwd", "sas", "session", "sig", "ticket"})
OTHER_WORDS = ("author", "tokeniz")
# They hold nothing secret, and change with every new signature.
SIGNED_WORDS = frozenset({"expires", "expiry", "expiration", "policy"})
SIGNED_BEGIN = (
    "x-amz-",
    "x-goog-",
    "x-oss-",
    "x-cos-",
    "x-ms-",
    "q-sign-",
    "q-ak",
    "q-key",
    "q-header",
    "q-url-param",
)
# What belongs to a signature of Azure, where there is a `sig`.
AZURE_SIGNED = frozenset({
    "saoid", "scid", "sdd", "se", "ses", "sip", "ske", "skoid", "sks", "skt", "sktid", "skv", "sp", "spr", "sr", "srt",
    "ss", "st", "suoid", "sv",
})  # fmt: skip


def licence_in(card: str) -> str | None:
    """The licence that the YAML at the head of a card names, as it is spelled there; None where it names none.

    Of several all are named, and `other` by its own name where it has one.
    """
    import yaml

    found = re.match(r"\s*---[ \t]*\r?\n(.*?)\r?\n---", card, re.DOTALL)
    try:
        head = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    if not isinstance(head, dict):
        return None
    named = head.get("license")
    if named == "other" and isinstance(head.get("license_name"), str):
        return str(head["license_name"])
    names = [
        name for name in (named if isinstance(named, list) else [named]) if isinstance(name, str) and name
    ]
    return ", ".join(names) or None


def is_secret_name(name: str) -> bool:
    """Whether a parameter, key or variable of this name holds what lets one in: `api_key`, `X-Amz-Signature`."""
    words = {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+", name)}
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    for other in OTHER_WORDS:
        plain = plain.replace(other, "") if "authoriz" not in plain else plain
    return bool(words & SECRET_WORDS) or any(part in plain for part in SECRET_PARTS)


def without_credentials(url: str) -> str:
    """A URL without who one is, and without the parameters that let one in or belong to a signature.

    What is left is the same for everybody who may read it. A name that is no URL loses such parameters too.
    """
    bare = ODD_USER_IN_URL.sub(_without_user, url)
    bare = USER_IN_URL.sub(_without_user, bare)
    place, mark, rest = bare.partition("?")
    if not mark:
        place, mark, rest = bare.partition("#")
    if not mark:
        return place
    parts = re.split(r"([&;#])", rest)
    names = [unquote_plus(part.partition("=")[0]) for part in parts]
    kept = ""
    for index in range(0, len(parts), 2):
        if not _lets_in(names[index], names):
            kept += (parts[index - 1] if kept else mark) + parts[index]
    return place + kept


def _without_user(found: re.Match[str]) -> str:
    if is_container(found):
        return found.group()
    return f"{found['protocol']}:{found['slashes']}"


def is_container(found: re.Match[str]) -> bool:
    """Whether what stands before the @ of a URL names no user."""
    return found["protocol"].lower() in CONTAINERS and ":" not in found["user"]


def _lets_in(name: str, others: list[str]) -> bool:
    lower = name.lower()
    with_signature = lower in AZURE_SIGNED and "sig" in (other.lower() for other in others)
    return is_secret_name(name) or lower in SIGNED_WORDS or lower.startswith(SIGNED_BEGIN) or with_signature


def protocol_of(url: str) -> str:
    """`s3` of `s3://bucket/file`."""
    return url.partition("://")[0].lower()


def folder_and_pattern(files: Any, path: str) -> tuple[str, str | None]:
    """The folder that a remote path begins with, and the pattern of names in it; None where it is no pattern.

    `files` is a file system of fsspec. What is there under its own name is meant by that, whatever its characters
    could stand for.
    """
    parts = path.split("/")
    for number, part in enumerate(parts):
        if WILDCARDS.search(part) and not files.exists("/".join(parts[: number + 1])):
            return "/".join(parts[:number]), "/".join(parts[number:])
    return path, None


def named_by(files: Any, folder: str, pattern: str) -> dict[str, dict[str, Any]]:
    """The objects below a remote folder that a pattern names, each with what its store says of it.

    fsspec's own `glob` knows no folders with odd names but as patterns, and looks for them in the folder around.
    """
    from fsspec.utils import glob_translate

    wanted = re.compile(glob_translate(pattern))
    depth = None if "**" in pattern else pattern.count("/") + 1
    found = files.find(folder, maxdepth=depth, detail=True)
    return {
        name: info
        for name, info in found.items()
        if info["type"] == "file" and wanted.match(str(name).removeprefix(folder).strip("/"))
    }


def failures_of(protocol: str) -> tuple[type[Exception], ...]:
    """What can go wrong with the file system of this protocol, as far as its package is installed."""
    found: list[type[Exception]] = [OSError, ValueError]
    for place in FAILURES.get(PACKAGES.get(protocol, ""), ()):
        module, name = place.split(":")
        try:
            found.append(getattr(import_module(module), name))
        except ImportError:
            continue
    return tuple(found)


def package_hint(protocol: str) -> str:
    """How to get what reads the protocol, as the end of a sentence; empty where no package is known."""
    package = PACKAGES.get(protocol)
    return f"; it needs a package: pip install {package}" if package else ""


# The figures that a training tells of its steps, and the plots of them that it leaves.
LOSS, HELD_OUT_LOSS = "loss", "eval_loss"
LOSS_PLOT, HELD_OUT_PLOT = "Training loss", "Held-out loss"
