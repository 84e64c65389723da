"""Errors of the machinery that a person can mend."""


class StoreError(ValueError):
    """The store cannot be read or written; the message says where and what to do."""


class UnreachableError(StoreError):
    """What is elsewhere cannot be reached now; what was known of it may still do."""


class SourceWarning(UserWarning):
    """A source is not what was asked for in every respect; the user must hear of it, and the work goes on."""


class LaunchError(ValueError):
    """A stage's process ended without a result. `user` marks mistakes in config or data: no traceback.

    `crashed`: something outside of it ended it, so that it may go on from its last checkpoint.
    """

    def __init__(self, message: str, *, user: bool = False, crashed: bool = False) -> None:
        super().__init__(message)
        self.user = user
        self.crashed = crashed
