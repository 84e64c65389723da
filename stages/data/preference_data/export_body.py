"""Preference rows in the columns that Axolotl's prepared datasets have."""

from pathlib import Path

import numpy as np
import pyarrow as pa

LABELS = {"chosen": 1.0, "rejected": 0.0}


def export_table(path: Path) -> pa.Table:
    """The rows of `rows.arrow` or `held_out.arrow`."""
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        batches = [export_batch(reader.get_batch(index)) for index in range(reader.num_record_batches)]
        return pa.concat_tables(batches) if batches else export_batch(reader.schema.empty_table())


def export_batch(batch: pa.RecordBatch | pa.Table) -> pa.Table:
    """Texts as they are; a reward model's token ids with their attention masks, and 1 for the better side."""
    if "chosen_ids" not in batch.schema.names:
        return pa.table({name: batch.column(name) for name in batch.schema.names})
    columns: dict[str, pa.Array] = {}
    for side, label in LABELS.items():
        ids = batch.column(f"{side}_ids")
        ids = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
        ones = pa.array(np.ones(len(ids.flatten()), np.int32))
        offsets = pa.array(np.concatenate([[0], np.cumsum(ids.value_lengths().to_numpy())]).astype(np.int32))
        columns |= {
            f"{side}_ids": ids,
            f"attention_mask_{side}": pa.ListArray.from_arrays(offsets, ones),
            f"labels_{side}": pa.array(np.full(len(ids), label)),
        }
    return pa.table(columns)
