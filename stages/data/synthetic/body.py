"""The body of the tokenized stage for `type: _synthetic`: rows of random tokens."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from tunemill.stages.artifacts import Tokenizer
from tunemill.stages.data.conversations.loaded import load_tokenizer
from tunemill.stages.data.rows.columns import column
from tunemill.stages.data.rows.token_rows import (
    BATCH_ROWS,
    NUMBERED_SCHEMA,
    Int32s,
    list_array,
    open_writer,
)
from tunemill.stages.data.synthetic.config import SyntheticConfig
from tunemill.stages.errors import SettingError
from tunemill.stages.report import Report, Workspace

ROLE = "tokens"


def synthetic(config: SyntheticConfig, tokenizer: Tokenizer, out: Workspace, report: Report) -> None:
    """Write `rows.arrow`. Raises SettingError for ids beyond the tokenizer's vocabulary."""
    loaded = load_tokenizer(tokenizer)
    end = loaded.vocab_size if config.max_input_id is None else config.max_input_id
    check_vocabulary(config, end, len(loaded))
    written = 0
    with open_writer(out.data / "rows.arrow", NUMBERED_SCHEMA) as writer:
        for batch in synthetic_rows(config, end):
            writer.write_batch(token_batch(batch, written))
            written += len(batch)
            report.progress(written, config.length, "rows")
    tokens = config.length * config.row_tokens
    report.summary(rows=config.length, tokens=tokens, trained_tokens=tokens, masked_tokens=0)


def check_vocabulary(config: SyntheticConfig, end: int, vocabulary: int) -> None:
    """Raises SettingError where ids from min_input_id to below `end` are not all tokens."""
    if end > vocabulary:
        raise SettingError(
            f"max_input_id: {end} is beyond the vocabulary: the tokenizer has {vocabulary} tokens"
        )
    if end <= config.min_input_id:
        raise SettingError(
            f"min_input_id: {config.min_input_id} is beyond the vocabulary: the tokenizer has {end} tokens"
        )


def synthetic_rows(config: SyntheticConfig, end: int) -> Iterator[Int32s]:
    """Batches of token ids below `end`, a row of the array for each row; the same for the same seed."""
    random = np.random.default_rng(config.seed)
    for first in range(0, config.length, BATCH_ROWS):
        shape = (min(BATCH_ROWS, config.length - first), config.row_tokens)
        yield random.integers(config.min_input_id, end, shape).astype(np.int32)


def token_batch(ids: Int32s, before: int) -> pa.RecordBatch:
    """Rows as an Arrow batch, all of their tokens trained; `before` rows were written already."""
    rows = len(ids)
    columns = [
        list_array(list(ids)),
        list_array(list(ids)),
        column(range(before + 1, before + rows + 1), pa.int64()),
        column([[ROLE]] * rows, pa.list_(pa.string())),
        list_array([[ids.shape[1]]] * rows),
    ]
    return pa.record_batch(columns, schema=NUMBERED_SCHEMA)
