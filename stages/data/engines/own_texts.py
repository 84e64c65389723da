"""Some of a dataset's own texts, to prove an engine with."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

SEED = 11
BATCHES = 4
ROWS_OF_EACH = 8
MOST_CHARACTERS = 2_000


def own_texts(path: Path) -> list[str]:
    """Texts in the rows of a RawDataset, from all over it, always the same ones."""
    reader = pa.ipc.open_file(pa.OSFile(str(path)))
    rng = random.Random(SEED)  # noqa: S311
    count = reader.num_record_batches
    texts: list[str] = []
    for index in sorted(rng.sample(range(count), min(count, BATCHES))):
        column = reader.get_batch(index).column("row")
        for row in rng.sample(range(len(column)), min(len(column), ROWS_OF_EACH)):
            texts += texts_in(json.loads(column[row].as_py()))
    return texts


def texts_in(value: Any) -> Iterator[str]:
    """All texts in a row. Long ones are cut."""
    if isinstance(value, str):
        yield value[:MOST_CHARACTERS]
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)
