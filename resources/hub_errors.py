"""What the Hub refuses, or why it cannot be reached, as one sentence that says what to do.

Imports huggingface_hub where it is needed. Stages may import this file too: both sides must say the same.
"""

from typing import TypeVar

E = TypeVar("E", bound=Exception)
PLACES = {"dataset": "datasets/", "model": ""}


def hub_reason(error: Exception, kind: str, name: str, revision: str) -> str:
    """Why a repository, a `dataset` or a `model`, cannot be had at a revision."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{PLACES[kind]}{name}"
    # A gated repository is one that is not found, so it is asked for first.
    match _cause(error, OfflineModeIsEnabled) or error:
        case GatedRepoError():
            return (
                f"{name}: is gated: accept its terms on {page}, wait for access where its owner grants it, and log in "
                f"as who has it: hf auth login, or set HF_TOKEN"
            )
        case LocalTokenNotFoundError():
            return f"{name}: hf_use_auth_token: true demands a token, and there is none: hf auth login, or set HF_TOKEN"
        case RevisionNotFoundError():
            return f"{name}: has no revision {revision!r} on the Hub; {page}/tree/main lists its branches and tags"
        case DisabledRepoError():
            return f"{name}: was disabled on the Hub; {page} says why"
        case RepositoryNotFoundError():
            return (
                f"{name}: is neither a local file or folder nor a {kind} on the Hub that can be seen from here; "
                f"correct the name, or for a private one log in: hf auth login, or set HF_TOKEN"
            )
        case HFValidationError():
            return f"{name}: can be no name on the Hub, nor is it a local file or folder; correct it"
        case OfflineModeIsEnabled():
            return (
                f"{name}: is no local file or folder, and the Hub is not asked, because HF_HUB_OFFLINE is set"
            )
        case EntryNotFoundError() if not is_unreachable(error):
            return f"{name}: lacks a file that it lists at {revision}; run again"
        case _:
            return f"{name}: is no local file or folder, and the Hub cannot be reached: {_first_line(error)}"


def push_reason(error: Exception, name: str, what: str = "datasets") -> str:
    """Why nothing can be pushed to the repository of this name; `what`: datasets or models."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if _cause(error, OfflineModeIsEnabled) is not None:
        return f"{name}: nothing is pushed to the Hub, because HF_HUB_OFFLINE is set"
    answered = _cause(error, HfHubHTTPError)
    status = None if answered is None else answered.response.status_code
    if status in (401, 403, 404):
        owner = name.partition("/")[0]
        return (
            f"{name}: the Hub refuses it to this token ({status}). It must be one that may write to {what} of "
            f"{owner}: hf auth login, or set HF_TOKEN"
        )
    if status in (409, 412):
        return f"{name}: somebody else has changed it at the same time; run again"
    if is_unreachable(error):
        return f"{name}: nothing can be pushed, because the Hub cannot be reached: {_first_line(error)}"
    return f"{name}: the Hub refuses what is pushed: {_first_line(error)}"


def is_unreachable(error: Exception) -> bool:
    """Whether an error is one of the network, or of a server that does not work; not an answer of the Hub's."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )

    if _cause(error, OfflineModeIsEnabled) is not None:
        return True
    if isinstance(error, LocalTokenNotFoundError | HFValidationError):
        return False
    answered = _cause(error, HfHubHTTPError)
    if answered is not None:
        status = answered.response.status_code
        return status >= 500 or status in (408, 429)
    return True


def _cause(error: BaseException | None, kind: type[E]) -> E | None:
    """An error of this kind, or the one of this kind that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, kind):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
