"""What a repository of the Hub is: the hashes of those of its files that are needed, or the commit as a whole.

What was found is remembered: of a commit for good, of a branch for when the Hub cannot be reached.
"""

import hashlib
import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tunemill.resources.canonical import hash_listing
from tunemill.resources.errors import SourceWarning, StoreError, UnreachableError
from tunemill.resources.identity import StatCache
from tunemill.resources.protocols import HUB_DATASETS, HUB_FILES, HUB_MODELS, without_credentials
from tunemill.resources.redaction import redacted, secrets_in

# A commit written out stays what it is.
COMMIT = re.compile(r"[0-9a-f]{40}")
# Of all files of a repository by name: those whose contents count, or None where that cannot be told.
Needs = Callable[[Collection[str]], Sequence[str] | None]


@dataclass(frozen=True)
class Counting:
    """Which files of a repository count, given the names of all; of the `card` only the YAML at its head does."""

    needs: Needs
    card: str | None = None


def identify_hub(
    name: str, revision: str | None, cache: StatCache, token: bool | None, counting: Counting | None
) -> dict[str, str]:
    """The identity of a repository at a revision. Two commits with the same files that are `counting` are the same.

    Without `counting`, and where the Hub does not say what is in its files, it is the commit. Of a repository that
    cannot be reached it is what was found last, and a SourceWarning says so. Raises StoreError.
    """
    try:
        is_commit = revision is not None and COMMIT.fullmatch(revision) is not None
        commit, is_reached = (str(revision), True) if is_commit else _commit(name, revision, cache, token)
        if counting is not None:
            files = _files(name, commit, cache, token, ask=is_reached, keep_none=not is_commit)
            needed = counting.needs(list(files))
            if needed and all(files.get(file) for file in needed):
                hashes = {file: files[file] for file in needed}
                if counting.card in hashes:
                    hashes[counting.card] = _head(
                        name, commit, counting.card, hashes[counting.card], cache, token
                    )
                return {"kind": HUB_FILES, "sha256": hash_listing(hashes), "commit": commit}
        return {"kind": "hub", "commit": commit}
    except StoreError as error:
        # Without what caused it: the libraries' messages hold the whole URL.
        raise StoreError(redacted(str(error), secrets_in(name, os.environ))) from None


def _commit(name: str, revision: str | None, cache: StatCache, token: bool | None) -> tuple[str, bool]:
    """The commit that a branch or tag is at, or was last where the Hub cannot be reached; and whether it was."""
    # Only remote sources need the libraries that reach them.
    from tunemill.resources.remote import hub_repository

    remembered = f"{without_credentials(name)}@{revision or 'main'}"
    try:
        commit, _ = hub_repository(name, revision, token)
    except UnreachableError as error:
        last = cache.recall(remembered)
        reason = redacted(str(error), secrets_in(name, os.environ))
        if last is None:
            raise StoreError(
                f"{reason}. Nothing is remembered of it here: run once with the network"
            ) from None
        plain = name.removeprefix(HUB_DATASETS).removeprefix(HUB_MODELS)
        message = (
            f"{reason}; going on with commit {last['commit']}, which {plain} was at {revision or 'main'} when it was "
            f"last reached ({last.get('at', 'an earlier time')})"
        )
        warnings.warn(message, SourceWarning, stacklevel=2)
        return last["commit"], False
    now = datetime.now(UTC).isoformat(timespec="seconds")
    cache.remember(remembered, {"kind": "hub", "commit": commit, "at": now})
    return commit, True


def _files(
    name: str, commit: str, cache: StatCache, token: bool | None, *, ask: bool, keep_none: bool
) -> Mapping[str, str]:
    """The hashes of a commit's files, which are asked for once; none where the Hub cannot be reached.

    A listing may be too long to be had in time. `keep_none` remembers that too, so that a key does not come and go.
    """
    from tunemill.resources.remote import hub_repository

    remembered = f"{without_credentials(name)}@{commit} files"
    known = cache.recall(remembered)
    if known is not None or not ask:
        return known or {}
    try:
        _, files = hub_repository(name, commit, token, with_files=True)
    except UnreachableError:
        if not keep_none:
            return {}
        files = {}
    cache.remember(remembered, files)
    return files


def _head(name: str, commit: str, card: str, mark: str, cache: StatCache, token: bool | None) -> str:
    """The hash of the YAML at the head of a card, whose contents have this `mark`; the mark if it cannot be had."""
    from tunemill.resources.remote import hub_head

    remembered = f"head of {mark}"
    known = cache.recall(remembered)
    if known is None:
        try:
            head = hub_head(name, commit, card, token)
        except StoreError:
            return mark
        known = {"head": f"head:{hashlib.sha256(head.encode()).hexdigest()}"}
        cache.remember(remembered, known)
    return known["head"]
