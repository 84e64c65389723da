"""What is said of a disk that is full, closed, broken or busy, and of errors that are none of these."""

import errno
import sqlite3
from pathlib import Path

import pytest

from tunemill.resources.errors import StoreError
from tunemill.resources.storage_errors import one_storage_error, storage_message

ROOT = Path("/srv/state")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/srv/state/a"), "the disk is full: /srv/state/a"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "the disk is full: /srv/state"),
        (OSError(errno.EROFS, "Read-only file system", "/srv/state/a"), "/srv/state/a may not be written"),
        (PermissionError(errno.EACCES, "Permission denied", "/srv/state/a"), "may not be written"),
        (OSError(errno.EIO, "Input/output error", "/srv/state/a"), "the disk failed"),
        (sqlite3.OperationalError("database or disk is full"), "the disk is full"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "may not be written"),
        (sqlite3.OperationalError("unable to open database file"), "may not be written"),
        (sqlite3.OperationalError("database is locked"), "another process holds its database"),
    ],
)
def test_an_error_of_the_disk_is_one_sentence(error, message):
    with pytest.raises(StoreError, match=message) as caught, one_storage_error(ROOT):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        # A user's file that may not be read says nothing of the store.
        PermissionError(errno.EACCES, "Permission denied", "/home/user/rows.jsonl"),
        PermissionError(errno.EPERM, "Operation not permitted"),
        FileNotFoundError(errno.ENOENT, "No such file or directory", "/srv/state/a"),
        sqlite3.OperationalError("no such table: files"),
    ],
)
def test_other_errors_pass(error):
    assert storage_message(error, ROOT) is None
    with pytest.raises(type(error)), one_storage_error(ROOT):
        raise error


def test_what_a_database_library_wraps_is_found():
    class WrappedError(Exception):
        pass

    with pytest.raises(StoreError, match="the disk is full"), one_storage_error(ROOT, WrappedError):
        try:
            raise sqlite3.OperationalError("database or disk is full")
        except sqlite3.OperationalError as error:
            raise WrappedError from error
