"""Arrow columns out of numbers and texts, by the bytes that they are made of, and numbers out of columns.

`pyarrow.array` asks of whatever it is given whether it is of pandas, which it imports for that where it is installed:
0.7 s, more than all else that the process of a stage of data does before its first row.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

NUMBERS = {pa.int32(): np.int32, pa.int64(): np.int64}


def column(values: Sequence[Any] | npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """What `pyarrow.array` makes of values without nulls: of int32, int64, bool, string, or lists of such.

    Less than 2**31 bytes of texts, and of values of lists.
    """
    if pa.types.is_list(kind):
        lengths = np.fromiter(map(len, values), np.int64, len(values))
        return list_column(_flat(values), lengths, kind.value_type)
    if pa.types.is_string(kind):
        return text_column([text.encode() for text in values])
    if pa.types.is_boolean(kind):
        packed = np.packbits(np.asarray(values, np.bool_), bitorder="little")
        return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(packed)])
    numbers = np.ascontiguousarray(values, NUMBERS[kind])
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def text_column(texts: Sequence[bytes]) -> pa.StringArray:
    """Texts in UTF-8 as a column of strings."""
    return joined_text_column(texts, list(map(len, texts)))


def joined_text_column(pieces: Sequence[bytes], lengths: Sequence[int]) -> pa.StringArray:
    """Texts of these lengths in bytes as a column of strings; they stand behind each other in the pieces."""
    offsets = _offsets(np.asarray(lengths, np.int64))
    return pa.StringArray.from_buffers(len(lengths), pa.py_buffer(offsets), pa.py_buffer(b"".join(pieces)))


def offsets_of_lengths(lengths: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where each of the rows of these lengths begins in a flat array, and where the last one ends."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def list_column(
    values: Sequence[Any] | npt.NDArray[Any], lengths: npt.NDArray[np.int64], kind: pa.DataType
) -> pa.ListArray:
    """Lists of these lengths, whose values stand one behind the other."""
    return pa.ListArray.from_arrays(column(_offsets(lengths), pa.int32()), column(values, kind))


def numbers_of(array: pa.Array) -> npt.NDArray[Any]:
    """The numbers of a column without nulls, where they lie; `to_numpy` too would ask for pandas."""
    found: npt.NDArray[Any] = np.from_dlpack(array)
    return found


def _offsets(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    ends = offsets_of_lengths(lengths)
    assert ends[-1] < 1 << 31, "a column of texts or lists has less than 2**31 bytes or values"
    return ends.astype(np.int32)


def _flat(rows: Sequence[Any] | npt.NDArray[Any]) -> Sequence[Any] | npt.NDArray[Any]:
    if len(rows) and isinstance(rows[0], np.ndarray):
        return np.concatenate(rows)
    return list(chain.from_iterable(rows))
