"""What stages and the store must know alike: names of files, schemes, packages behind protocols. Imports nothing heavy.

The one file of `resources/` that stages may import.
"""

import re
from importlib import import_module

LINEAGE_FILE = "tunemill_lineage.json"
HUB_DATASETS = "hf://datasets/"
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


def protocol_of(url: str) -> str:
    """`s3` of `s3://bucket/file`."""
    return url.partition("://")[0].lower()


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
