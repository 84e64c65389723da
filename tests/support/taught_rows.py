"""What a made-up teacher says of rows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tunemill.stages.artifacts import TeacherLogProbs
from tunemill.stages.data.rows.teacher_rows import (
    TaughtRow,
    taught_batch,
    teacher_writer,
    trained_positions,
)

TOP_K = 4


def write_taught(folder: Path, rows: Sequence[tuple[list[int], list[int]]]) -> TeacherLogProbs:
    """Four tokens at random for each trained token of the rows."""
    random = np.random.default_rng(0)
    said = []
    for number, (_, labels) in enumerate(rows, 1):
        positions = trained_positions(np.array(labels, np.int32)).astype(np.int32)
        count = len(positions)
        ids_nk = np.array([random.choice(range(3, 400), TOP_K, replace=False) for _ in positions])
        log_p_nk = np.log(-np.sort(-random.dirichlet(np.ones(TOP_K), count)) * 0.9)
        parts = (np.full(count, TOP_K, np.int32), ids_nk.astype(np.int32).ravel())
        said.append(TaughtRow(number, positions, *parts, log_p_nk.astype(np.float32).ravel()))
    folder.mkdir(parents=True, exist_ok=True)
    with teacher_writer(folder / "rows.arrow") as writer:
        writer.write_batch(taught_batch(said))
    return TeacherLogProbs(folder)
