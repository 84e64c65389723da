"""Errors that a person can mend: bad rows, bad files, settings that cannot be honoured."""


class UserError(ValueError):
    """What was given, which rule it breaks, and how to mend it. Shown without a traceback."""


class RowError(UserError):
    """A row of a dataset cannot be used."""


class SourceError(UserError):
    """Something that the config names cannot be read."""


class SettingError(UserError):
    """A setting cannot be honoured with these inputs or on this machine."""
