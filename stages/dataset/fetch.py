"""Objects behind URLs, copied into a local folder: after that they are read like any local file."""

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec

from tunemill.stages.dataset.names import has_wildcards, is_web, last_part, protocol_of
from tunemill.stages.errors import SourceError
from tunemill.stages.report import Report

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


def fetch(url: str, folder: Path, report: Report) -> Path:
    """Copy what the URL names into `folder`, which is emptied before. Returns a file, or a folder of files.

    Raises SourceError when it cannot be had, or the package that knows its protocol is not installed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, path = _file_system(url)
    errors = _errors(url)
    try:
        return _copy(url, files, path, folder, report)
    except FileNotFoundError as error:
        raise SourceError(f"{url}: there is nothing{_reason(error.__cause__)}") from None
    except errors as error:
        raise SourceError(f"{url}: cannot be read{_reason(error)}") from None


def _copy(url: str, files: Any, path: str, folder: Path, report: Report) -> Path:
    base = path.rstrip("/")
    if is_web(url):
        names = [path]
    elif has_wildcards(url):
        names = sorted(name for name in files.glob(path) if files.isfile(name))
        base = fixed_part(path)
    elif files.isfile(path):
        names = [path]
    else:
        names = sorted(files.find(path))
    if not names:
        raise FileNotFoundError(url)
    if names == [path]:
        target = folder / last_part(url)
        files.get_file(path, str(target))
        return target
    for done, name in enumerate(names):
        target = folder / str(name).removeprefix(base).strip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(target))
        report.progress(done + 1, len(names), "files")
    return folder


def fixed_part(pattern: str) -> str:
    """The folders of a pattern of names before its first wildcard."""
    parts = pattern.split("/")
    fixed = next(number for number, part in enumerate(parts) if has_wildcards(part))
    return "/".join(parts[:fixed])


def _file_system(url: str) -> tuple[Any, str]:
    protocol, errors = protocol_of(url), _errors(url)
    try:
        # Proxies are found as in other programs.
        options = {"client_kwargs": {"trust_env": True}} if is_web(url) else {}
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        package = PACKAGES.get(protocol)
        hint = f"; it needs a package: pip install {package}" if package else ""
        raise SourceError(f"{url}: {protocol}:// cannot be read here{hint}") from None
    except errors as error:
        raise SourceError(f"{url}: cannot be read{_reason(error)}") from None
    files.invalidate_cache()
    return files, path


def _errors(url: str) -> tuple[type[Exception], ...]:
    """What can go wrong with the file system of this URL."""
    found: list[type[Exception]] = [OSError, ValueError]
    for place in FAILURES.get(PACKAGES.get(protocol_of(url), ""), ()):
        module, name = place.split(":")
        try:
            found.append(getattr(import_module(module), name))
        except ImportError:
            continue
    return tuple(found)


def _reason(error: BaseException | None) -> str:
    return f": {error}" if error is not None and str(error) else ""
