"""What a row says of a teacher's log-probabilities, in the ways in which they are written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tunemill.stages.data.conversations.example import BadRowError, RowValue
from tunemill.stages.data.rows.labels import IGNORED
from tunemill.stages.data.rows.mapped import Tokens
from tunemill.stages.data.rows.teacher_rows import TaughtRow, trained_positions

# Axolotl's name of the ids beside plain numbers.
IDS_FIELD = "target_token_ids"
# A rounded log-probability of a certain token may be a little above 0.
HIGHEST = 0.01
# What is less is written for minus infinity, and would be that as a float32.
LOWEST = -1e30
# More than any token's id has.
DIGITS = 18
PREFIX = "token_id:"

Candidates = dict[int, float]


def taught_row(
    row: RowValue, number: int, field: str, labels: Tokens, vocabulary: int, temperature: float
) -> TaughtRow:
    """The teacher's tokens at each trained token of a row that became these labels.

    Raises BadRowError for what is no list of log-probabilities, or none of the row's tokens.
    """
    entries = row.get(field)
    if not isinstance(entries, list):
        given = f"it is {entries!r:.60}" if field in row else f"the row has {sorted(row)}"
        raise BadRowError(f"no list of log-probabilities in field {field!r}; {given}")
    ids = row.get(IDS_FIELD)
    positions = trained_positions(labels)
    said = [
        {} if place is None else candidates(entries[place], _at(ids, place), vocabulary)
        for place in places(len(entries), labels)
    ]
    if positions.size and not any(said):
        raise BadRowError(
            f"field {field!r} has nothing for any of the {positions.size} tokens that are trained"
        )
    ordered = [sorted(one.items(), key=lambda item: (-item[1], item[0])) for one in said]
    flat = [item for one in ordered for item in one]
    return TaughtRow(
        number,
        positions.astype(np.int32),
        np.array([len(one) for one in ordered], np.int32),
        np.array([token for token, _ in flat], np.int32),
        np.array([log_p * temperature for _, log_p in flat], np.float32),
    )


def places(entries: int, labels: Tokens) -> Iterator[int | None]:
    """Which entry is said of each trained token; None where none is.

    There is one for each token of the row, or one for each that is trained, or else they are of its last tokens.
    """
    if entries > len(labels):
        raise BadRowError(
            f"there are {entries} entries of log-probabilities, and the row has {len(labels)} tokens"
        )
    positions = trained_positions(labels).tolist()
    trained = int((labels != IGNORED).sum())
    if entries == trained < len(labels):
        # The first token of a row is predicted from nothing, though it may have a label.
        yield from range(trained - len(positions), trained)
        return
    before = len(labels) - entries
    for position in positions:
        yield position - before if position >= before else None


def candidates(entry: Any, ids: Any, vocabulary: int) -> Candidates:
    """Token id -> log-probability, of one entry. What has none, or that of minus infinity, is left out."""
    found: Candidates = {}
    for token, log_p in _pairs(entry, ids):
        if log_p is None:
            continue
        if isinstance(log_p, bool) or not isinstance(log_p, int | float) or not log_p <= HIGHEST:
            raise BadRowError(f"{log_p!r:.40} is no log-probability: those are numbers of at most 0")
        if not 0 <= token < vocabulary:
            raise BadRowError(
                f"a log-probability of the token {token}, and the tokenizer has 0 to {vocabulary - 1}"
            )
        if log_p >= LOWEST:
            found.setdefault(token, float(log_p))
    return found


def _pairs(entry: Any, ids: Any) -> Iterator[tuple[int, Any]]:
    """Token ids, each with what stands for its log-probability."""
    if isinstance(entry, Mapping):
        # As vLLM writes them of a prompt.
        for token, value in entry.items():
            yield _id(token), value.get("logprob") if isinstance(value, Mapping) else value
    elif entry is None:
        return
    elif not isinstance(entry, list):
        raise BadRowError(f"{entry!r:.60} says of no tokens how likely they are")
    elif entry and not isinstance(entry[0], Mapping):
        if not isinstance(ids, list) or len(ids) != len(entry):
            raise BadRowError(
                f"log-probabilities without tokens: beside plain numbers the field {IDS_FIELD!r} has as many token ids"
            )
        yield from zip(map(_id, ids), entry, strict=True)
    else:
        for item in entry:
            if not isinstance(item, Mapping):
                raise BadRowError(f"{item!r:.60} is no mapping of token and logprob")
            yield _id(item.get("token_id", item.get("token"))), item.get("logprob")


def _id(token: Any) -> int:
    """A token's id, which may be written as `token_id:123`."""
    if isinstance(token, int) and not isinstance(token, bool):
        return token
    number = token.removeprefix(PREFIX) if isinstance(token, str) else ""
    if not number.isdecimal() or len(number) > DIGITS:
        raise BadRowError(
            f"{token!r:.40} is no id of a token: write 123, or 'token_id:123' (vLLM: --return-tokens-as-token-ids)"
        )
    return int(number)


def _at(ids: Sequence[Any] | None, place: int) -> Any:
    return ids[place] if isinstance(ids, list) and place < len(ids) else None
