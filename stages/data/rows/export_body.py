"""Token rows in the columns that Axolotl's prepared datasets have."""

import pyarrow as pa


def export_batch(batch: pa.RecordBatch) -> pa.Table:
    """Ids and labels."""
    return pa.table({name: batch.column(name) for name in ("input_ids", "labels")})
