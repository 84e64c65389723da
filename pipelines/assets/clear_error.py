"""A failure that a person reads: its message, and nothing of the code that it went through."""

import dagster as dg
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._utils.error import SerializableErrorInfo  # type: ignore[attr-defined]


class _ToldError(DagsterUserCodeProcessError):
    """An error of which Dagster shows the message alone."""

    def __init__(self, message: str) -> None:
        told = SerializableErrorInfo(message, [], None)
        super().__init__(message, user_code_process_error_infos=[told])  # type: ignore[no-untyped-call]


class ClearError(dg.Failure, _ToldError):
    """A step's failure without a stack trace.

    Dagster shows of an error of another process what that process has said of it: here the message alone. Of any other
    exception, a `Failure` too, it shows the frames of its own engine.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, allow_retries=False)


def failure(message: str, *, again: bool) -> dg.Failure:
    """What ends an attempt. Dagster tries again after an exception of its users' only, and shows its frames then."""
    return dg.Failure(description=message) if again else ClearError(message)
