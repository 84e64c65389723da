"""Objects behind URLs, copied into a local folder: after that they are read like any local file."""

import shutil
from pathlib import Path
from typing import Any

import fsspec

from tunemill.resources.protocols import failures_of, folder_and_pattern, named_by, package_hint, protocol_of
from tunemill.stages.data.sources.names import is_web, last_part
from tunemill.stages.errors import SourceError
from tunemill.stages.report import Report

# In bytes. Of what is put below a folder of the store, whose own path is short of the rest.
LONGEST_PART, LONGEST_BELOW = 255, 2000


def fetch(url: str, folder: Path, report: Report) -> Path:
    """Copy what the URL names into `folder`, which is emptied before. Returns a file, or a folder of files.

    Raises SourceError when it cannot be had, or the package that knows its protocol is not installed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files, path = _file_system(url)
    errors = failures_of(protocol_of(url))
    try:
        return _copy(url, files, path, folder, report)
    except FileNotFoundError as error:
        raise SourceError(f"{url}: there is nothing{_reason(error.__cause__)}") from None
    except errors as error:
        raise SourceError(f"{url}: cannot be read{_reason(error)}") from None


def _copy(url: str, files: Any, path: str, folder: Path, report: Report) -> Path:
    base, pattern = (path, None) if is_web(url) else folder_and_pattern(files, path)
    base = base.rstrip("/")
    if is_web(url):
        names = [path]
    elif pattern is not None:
        names = sorted(named_by(files, base, pattern))
    elif files.isfile(path):
        names = [path]
    else:
        names = sorted(files.find(path))
    if not names:
        raise FileNotFoundError(url)
    if names == [path]:
        target = folder / _file_name(last_part(url))
        files.get_file(path, str(target))
        return target
    for done, name in enumerate(names):
        target = folder / _inside(url, str(name).removeprefix(base).strip("/"))
        target.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(target))
        report.progress(done + 1, len(names), "files")
    return folder


def _file_name(name: str) -> str:
    """The name of an object, or what is left of it where it is too long for a file, or means a folder."""
    if name in ("", ".", ".."):
        return "object"
    plain = "".join(character if character.isprintable() else "_" for character in name)
    return plain if len(plain.encode()) <= LONGEST_PART else plain.encode()[-100:].decode(errors="ignore")


def _inside(url: str, name: str) -> str:
    """The place of an object below the folder. Raises SourceError where it is none."""
    parts = name.split("/")
    too_long = any(len(part.encode()) > LONGEST_PART for part in parts) or len(name.encode()) > LONGEST_BELOW
    if too_long or {"", ".", ".."} & set(parts) or not name.isprintable():
        raise SourceError(
            f"{url}: holds {name[:200]!r}, which can be no file; rename it there, or name single objects"
        )
    return name


def _file_system(url: str) -> tuple[Any, str]:
    protocol = protocol_of(url)
    errors = failures_of(protocol)
    try:
        # Proxies are found as in other programs.
        options = {"client_kwargs": {"trust_env": True}} if is_web(url) else {}
        files, path = fsspec.core.url_to_fs(url, **options)
    except ImportError:
        raise SourceError(f"{url}: {protocol}:// cannot be read here{package_hint(protocol)}") from None
    except errors as error:
        raise SourceError(f"{url}: cannot be read{_reason(error)}") from None
    files.invalidate_cache()
    return files, path


def _reason(error: BaseException | None) -> str:
    return f": {error}" if error is not None and str(error) else ""
