"""Rows of Arrow batches as Python values. A value that has none makes one bad row, which says where it stands."""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from tunemill.stages.data.sources.filled_nulls import without_filled
from tunemill.stages.data.sources.json_text import loose_text
from tunemill.stages.data.sources.json_values import NO_JSON, decoded
from tunemill.stages.data.sources.rows import Row
from tunemill.stages.data.sources.unpacking import UnreadableError

BATCH_ROWS = 1024
DAY = 86_400
MILLISECONDS_A_DAY = DAY * 1000
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1000, "ns": 1}
# What Arrow and Python raise for values that Python does not have.
NO_PYTHON = (ArithmeticError, ValueError, LookupError, TypeError, RecursionError, pa.ArrowException)
# What is read bare, to tell damage of the file from values that mean nothing: of the same width, and of any content.
BARE = (
    (kinds.is_string, pa.binary()),
    (kinds.is_large_string, pa.large_binary()),
    (kinds.is_string_view, pa.binary_view()),
    (kinds.is_time32, pa.int32()),
    (kinds.is_time64, pa.int64()),
    (kinds.is_date64, pa.int64()),
)
LISTS = {
    pa.lib.Type_LIST: pa.list_,
    pa.lib.Type_LARGE_LIST: pa.large_list,
    pa.lib.Type_LIST_VIEW: pa.list_view,
    pa.lib.Type_LARGE_LIST_VIEW: pa.large_list_view,
}


class NoValueError(ValueError):
    """A value that cannot be had; the message names its column, `shown` is what can be shown of it."""

    def __init__(self, place: str, reason: str, shown: str | None = None) -> None:
        super().__init__(f"column {place!r} {reason}")
        self.shown = shown


def check_columns(schema: Any) -> None:
    """Raises UnreadableError for names that stand there twice, and for columns of which no value can be read."""
    names = [str(name) for name in schema.names]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UnreadableError(f"it names {repeated} more than once among its columns; rename or drop one")
    for field in schema:
        _check_type(field.type, str(field.name))


def rows_of(batch: Any, before: int, skip: int) -> Iterator[Row]:
    """The rows of a batch before which there are `before` rows in the file; those up to `skip` are left out."""
    careful = frozenset(field.name for field in batch.schema if _needs_care(field.type))
    for start in range(max(skip - before, 0), batch.num_rows, BATCH_ROWS):
        rows = _piece(batch.slice(start, BATCH_ROWS), before + start, careful)
        yield from without_filled(rows, batch.schema)


def _piece(piece: Any, number: int, careful: frozenset[str]) -> Iterator[Row]:
    """The rows behind row `number`. Where one of them has no value, halves of them, down to that one."""
    try:
        values = _with_care(piece, careful) if careful else piece.to_pylist(maps_as_pydicts="strict")
    except NO_PYTHON as error:
        half = piece.num_rows // 2
        if half:
            yield from _piece(piece.slice(0, half), number, careful)
            yield from _piece(piece.slice(half), number + half, careful)
        else:
            yield _bad_row(piece, number + 1, error)
        return
    for value in values:
        number += 1
        yield Row(number, value)


def checked(batch: Any) -> Any:
    """The batch. Raises ArrowInvalid for offsets that lead nowhere, which would end the process.

    Values that mean nothing, as texts that are not UTF-8, are no damage: they make bad rows.
    """
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        for column in batch.columns:
            _bare(column).validate(full=True)
    return batch


def _with_care(piece: Any, careful: frozenset[str]) -> list[dict[str, Any]]:
    """The values of rows some of whose columns Arrow itself would convert to something else."""
    names = piece.schema.names
    columns = [
        [plain(item, name) for item in column]
        if name in careful
        else column.to_pylist(maps_as_pydicts="strict")
        for name, column in zip(names, piece.columns, strict=True)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _bad_row(piece: Any, number: int, error: Exception) -> Row:
    """The one row of a piece, with why it has no value, and what can be read of it."""
    found: dict[str, Any] = {}
    problem = ""
    for name, column in zip(piece.schema.names, piece.columns, strict=True):
        try:
            found[name] = plain(column[0], name)
        except NoValueError as reason:
            problem, found[name] = problem or str(reason), reason.shown
    if not problem:
        raise error
    return Row(number, problem=problem, text=loose_text(found))


def plain(scalar: Any, place: str) -> Any:
    """A value of Arrow as Python has it. Raises NoValueError where there is none, with its `place` in the column."""
    if not scalar.is_valid:
        return None
    kind = scalar.type
    for is_kind, read in READERS:
        if is_kind(kind):
            return read(scalar, place)
    return _leaf(scalar, place)


def _struct(scalar: Any, place: str) -> dict[str, Any]:
    return {name: plain(scalar[name], f"{place}.{name}") for name in scalar}


def _list(scalar: Any, place: str) -> list[Any]:
    return [plain(item, f"{place}[{index}]") for index, item in enumerate(scalar.values)]


def _map(scalar: Any, place: str) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for entry in scalar.values:
        key = plain(entry[0], f"{place}.key")
        if isinstance(key, dict | list):
            raise NoValueError(place, "is a map whose keys are no plain values; keys in JSON are text")
        if key in found:
            raise NoValueError(place, f"is a map that has the key {key!r} twice")
        found[key] = plain(entry[1], f"{place}[{key!r}]")
    return found


def _inner(scalar: Any, place: str) -> Any:
    return plain(scalar.value, place)


def _json(scalar: Any, place: str) -> Any:
    text = _leaf(scalar, place)
    try:
        return decoded(text)
    except ValueError as error:
        reason = str(error).removeprefix(NO_JSON)
        raise NoValueError(place, f"is no JSON, as its type says: {reason}", text) from None


def _time(scalar: Any, place: str) -> Any:
    """A time of day; with nanoseconds as text, since Python counts microseconds."""
    nanoseconds = scalar.value * NANOSECONDS[scalar.type.unit]
    if not 0 <= nanoseconds < DAY * NANOSECONDS["s"]:
        raise NoValueError(
            place, f"holds the {scalar.type} {scalar.value}, which is no time of a day", _shown(scalar)
        )
    return scalar.cast(pa.string()).as_py() if nanoseconds % 1000 else scalar.as_py()


def _date64(scalar: Any, place: str) -> Any:
    if scalar.value % MILLISECONDS_A_DAY:
        raise NoValueError(
            place, f"holds the {scalar.type} {scalar.value}, which is no whole day", _shown(scalar)
        )
    return _leaf(scalar, place)


def _timespan(scalar: Any, place: str) -> Any:
    raise NoValueError(
        place, "holds a length of time, which has no form in JSON; store a number or a text", _shown(scalar)
    )


def _leaf(scalar: Any, place: str) -> Any:
    kind = scalar.type
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        shown = error.object.decode("utf-8", errors="replace")
        raise NoValueError(place, f"is not UTF-8: byte {error.start + 1} of its text", shown) from None
    except NO_PYTHON as error:
        reason = str(error)
        if kinds.is_timestamp(kind) or kinds.is_date(kind):
            reason = "which is outside of the years 1 to 9999"
        raise NoValueError(place, f"holds the {kind} {_shown(scalar)}, {reason}", _shown(scalar)) from None


READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], Any]], ...] = (
    (kinds.is_struct, _struct),
    (kinds.is_map, _map),
    (kinds.is_union, _inner),
    (kinds.is_dictionary, _inner),
    (kinds.is_run_end_encoded, _inner),
    (lambda kind: kinds.is_nested(kind) and hasattr(kind, "value_type"), _list),
    (lambda kind: isinstance(kind, pa.JsonType), _json),
    (kinds.is_time, _time),
    (kinds.is_date64, _date64),
    (lambda kind: kinds.is_duration(kind) or kinds.is_interval(kind), _timespan),
)
CAREFUL = frozenset({_json, _time, _date64, _timespan})


def _needs_care(kind: Any) -> bool:
    """Whether Arrow's own conversion of a type makes other values than `plain`."""
    own = next((read for is_kind, read in READERS if is_kind(kind)), _leaf)
    return own in CAREFUL or any(_needs_care(inner) for _, inner in _inner_types(kind))


def _inner_types(kind: Any) -> list[tuple[str, Any]]:
    """The types inside of a type, each with how its place is written behind the name of its column."""
    if kinds.is_struct(kind) or kinds.is_union(kind):
        return [(f".{field.name}", field.type) for field in kind]
    if kinds.is_map(kind):
        return [(".key", kind.key_type), ("[]", kind.item_type)]
    if kinds.is_dictionary(kind) or kinds.is_run_end_encoded(kind):
        return [("", kind.value_type)]
    return [("[]", kind.value_type)] if kinds.is_nested(kind) else []


def _check_type(kind: Any, place: str) -> None:
    if kinds.is_struct(kind):
        names = [field.name for field in kind]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise UnreadableError(
                f"column {place!r} names its fields {repeated} more than once; rename or drop one"
            )
    if kinds.is_timestamp(kind) and kind.tz is not None:
        try:
            pa.lib.string_to_tzinfo(kind.tz)
        except (ValueError, LookupError, pa.ArrowException):
            raise UnreadableError(
                f"column {place!r} has the time zone {kind.tz!r}, which is not known here; store it as UTC"
            ) from None
    for inside, inner in _inner_types(kind):
        _check_type(inner, f"{place}{inside}")


def _bare(column: Any) -> Any:
    """The column without what its types promise of the values, as far as Arrow can view it so."""
    stored = column.storage if isinstance(column.type, pa.BaseExtensionType) else column
    try:
        return stored.view(_bare_type(stored.type))
    except pa.ArrowException:
        return column


def _bare_type(kind: Any) -> Any:
    if isinstance(kind, pa.BaseExtensionType):
        return _bare_type(kind.storage_type)
    for is_kind, bare in BARE:
        if is_kind(kind):
            return bare
    if kinds.is_decimal(kind):
        return pa.binary(kind.byte_width)
    if kinds.is_struct(kind):
        return pa.struct([pa.field(field.name, _bare_type(field.type), field.nullable) for field in kind])
    if kinds.is_map(kind):
        return pa.map_(_bare_type(kind.key_type), _bare_type(kind.item_type))
    if kinds.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _bare_type(kind.value_type))
    if kinds.is_fixed_size_list(kind):
        return pa.list_(_bare_type(kind.value_type), kind.list_size)
    make = LISTS.get(kind.id)
    return kind if make is None else make(_bare_type(kind.value_type))


def _shown(scalar: Any) -> str:
    """A value that Python does not have, as Arrow writes it: its number where that is out of range too."""
    try:
        text = str(scalar.cast(pa.string()))
    except pa.ArrowException:
        text = ""
    return str(getattr(scalar, "value", "")) if not text or text.startswith("<value") else text
