"""Nulls that a columnar file fills in: all rows of a struct have its fields, so one that a row lacks is null there.

In arguments of calls and parameters of tools a null counts, and these are none: they are left out there. One that was
written cannot be told from them. Lists, maps, texts and JSON columns hold only what was written.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.types as kinds

from tunemill.stages.data.rows.nulls import EXACT
from tunemill.stages.data.sources.rows import Row

LISTS = (
    kinds.is_list,
    kinds.is_large_list,
    kinds.is_fixed_size_list,
    kinds.is_list_view,
    kinds.is_large_list_view,
)


def without_filled(rows: Iterable[Row], schema: pa.Schema) -> Iterator[Row]:
    """The rows of a batch of this schema, without null fields of structs where nulls count."""
    columns = {field.name: field.type for field in schema if _fills(field.type, field.name in EXACT)}
    for row in rows:
        if columns and isinstance(row.value, dict):
            for name in columns.keys() & row.value.keys():
                row.value[name] = _cleaned(row.value[name], columns[name], name in EXACT)
        yield row


def _fills(kind: Any, counts: bool) -> bool:
    """Whether values of this type may have filled-in nulls where nulls count; `counts`: they do in all of the value."""
    if kinds.is_struct(kind):
        return counts or any(_fills(field.type, field.name in EXACT) for field in kind)
    inner = _inner(kind)
    return inner is not None and _fills(inner, counts)


def _inner(kind: Any) -> Any:
    """The type of what a list or a map holds; None for other types."""
    if kinds.is_map(kind):
        return kind.item_type
    return kind.value_type if any(is_kind(kind) for is_kind in LISTS) else None


def _cleaned(value: Any, kind: Any, counts: bool) -> Any:
    if value is None or not _fills(kind, counts):
        return value
    if kinds.is_struct(kind):
        return {
            field.name: _cleaned(value[field.name], field.type, counts or field.name in EXACT)
            for field in kind
            if not counts or value[field.name] is not None
        }
    inner = _inner(kind)
    if isinstance(value, dict):
        return {key: _cleaned(item, inner, counts) for key, item in value.items()}
    return [_cleaned(item, inner, counts) for item in value]
