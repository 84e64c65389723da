"""Which vLLM there is: in this environment or another one, found without importing it, or behind a URL."""

import json
import urllib.error
import urllib.request

from tunemill.stages.errors import SettingError
from tunemill.stages.interpreters import version_beside, why_without
from tunemill.stages.models.vllm.python_key import KEY

PACKAGE = "vllm"
# Before it, answers had no token ids.
OLDEST = (0, 10, 2)
SECONDS = 10


def version_in(python: str | None) -> str | None:
    """The version of vLLM beside an interpreter, None: this one."""
    return version_beside(python, PACKAGE)


def fault_of(python: str | None) -> str | None:
    """Why vLLM cannot be started with an interpreter."""
    found = version_in(python)
    if found is None and python is None:
        return (
            "vLLM is not installed beside tunemill. It wants a torch of its own, so give it an environment of its own "
            f"(python -m venv vllm && vllm/bin/pip install vllm), and name its Python: {KEY}: /path/to/vllm/bin/python"
        )
    if found is None:
        return why_without(str(python), "vLLM")
    return fault_of_version(found)


def fault_of_version(version: str | None) -> str | None:
    """Why this version of vLLM is too old."""
    numbers = tuple(int(part) for part in (version or "").split(".")[: len(OLDEST)] if part.isdigit())
    if version is None or numbers >= OLDEST:
        return None
    return f"vLLM {version} is too old: from {'.'.join(map(str, OLDEST))} on it tells token ids. Update it"


def version_at(url: str) -> str:
    """The version of the vLLM behind a URL. Raises SettingError where none answers."""
    try:
        # What `url` is has been looked at: http or https.
        with urllib.request.urlopen(f"{url}/version", timeout=SECONDS) as reply:  # noqa: S310
            return str(json.load(reply)["version"]).partition("+")[0]
    except (OSError, ValueError, KeyError, TypeError, urllib.error.URLError) as error:
        raise SettingError(
            f"engine: {url}/version does not tell which vLLM answers there ({type(error).__name__}: {error}). Start "
            f"the server; or give the `version` that it had, such as 0.32.0, with which stored answers are found "
            f"without it"
        ) from None
