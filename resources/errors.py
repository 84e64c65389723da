"""Errors of the machinery that a person can mend."""


class StoreError(ValueError):
    """The store cannot be read or written; the message says where and what to do."""


class LaunchError(ValueError):
    """A stage's process ended without a result. `user` marks mistakes in config or data: no traceback."""

    def __init__(self, message: str, *, user: bool = False) -> None:
        super().__init__(message)
        self.user = user
