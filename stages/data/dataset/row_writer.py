"""Writes rows as Arrow batches, each while the rows of the next one are read."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from tunemill.stages.data.rows.columns import column, joined_text_column, text_column
from tunemill.stages.data.sources.rows import JoinedTexts

COLUMNS = [("row", pa.string()), ("line", pa.int64()), ("file", pa.string())]
BATCH_ROWS = 1024
BATCH_CHARACTERS = 1 << 24


class RowWriter:
    """Writes rows to an Arrow file. `unit` says what their numbers count; `tell` is told how many are written.

    A batch has 1024 rows, or as many as it takes to have 2^24 characters.
    """

    def __init__(self, target: Path, unit: str, tell: Callable[[int], None]) -> None:
        self.written = 0
        self._schema = pa.schema(COLUMNS, metadata={"unit": unit})
        self._tell = tell
        # In pieces of many texts, so that not a whole batch of small objects is alive at once.
        self._texts: list[bytes] = []
        self._lengths: list[int] = []
        self._numbers: list[int] = []
        self._files: list[bytes] = []
        # Bytes are as many as characters or more, so characters are only counted where the bytes are too many.
        self._size, self._counts_characters = 0, False
        self._sink = pa.OSFile(str(target), "wb")
        self._writer = pa.ipc.new_file(self._sink, self._schema)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def add(self, texts: Sequence[bytes], numbers: Sequence[int], file: str) -> None:
        """Take rows: their texts in UTF-8, their numbers, and the file that all of them are from."""
        left, start = JoinedTexts.of(texts), 0
        while left:
            part = left if len(left) <= self._room() else left[: self._room()]
            part = part[: self._fitting(part)]
            self._texts.append(part.joined)
            self._lengths += part.lengths
            self._numbers += numbers[start : start + len(part)]
            self._files += [file.encode()] * len(part)
            left, start = left[len(part) :], start + len(part)
            if not self._room() or self._size >= BATCH_CHARACTERS:
                self._flush()
                self._tell(self.written)

    def _room(self) -> int:
        """For how many more rows there is room in the batch."""
        return BATCH_ROWS - len(self._lengths)

    def _fitting(self, texts: JoinedTexts) -> int:
        """How many of the texts fill the batch, or all."""
        if not self._counts_characters:
            size = self._size + len(texts.joined)
            if size < BATCH_CHARACTERS:
                self._size = size
                return len(texts)
            self._size, self._counts_characters = sum(map(_characters, self._texts)), True
        for count, text in enumerate(texts, 1):
            self._size += _characters(text)
            if self._size >= BATCH_CHARACTERS:
                return count
        return len(texts)

    def _flush(self) -> None:
        if not self._lengths:
            return
        columns = [
            joined_text_column(self._texts, self._lengths),
            column(self._numbers, pa.int64()),
            text_column(self._files),
        ]
        batch = pa.record_batch(columns, schema=self._schema)
        self._wait()
        self._writing = self._thread.submit(self._writer.write_batch, batch)
        self.written += len(self._lengths)
        self._texts, self._lengths, self._numbers, self._files = [], [], [], []
        self._size, self._counts_characters = 0, False

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def __enter__(self) -> "RowWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._flush()
            self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()
            self._sink.close()


def _characters(text: bytes) -> int:
    return len(text) if text.isascii() else len(text.decode())
