"""Writes a GGUF file tensor by tensor."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np

from tunemill.stages.models.exported_gguf.tensors_body import Planned, pieces
from tunemill.stages.report import Report


def write(path: Path, writer: gguf.GGUFWriter, tensors: Sequence[Planned], report: Report) -> None:
    """Write the head that `writer` has been told, then the tensors; in memory there is never more than some rows."""
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.size, tensor.type)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    total = sum(tensor.size for tensor in tensors)
    done = 0
    with path.open("ab") as file:
        _fill(file.tell(), file)
        for tensor in tensors:
            for piece in pieces(tensor):
                file.write(piece)
                done += len(piece)
                report.progress(done, total, "bytes")
            _fill(file.tell(), file)


def _fill(length: int, file: BinaryIO) -> None:
    file.write(bytes(-length % gguf.GGUF_DEFAULT_ALIGNMENT))
