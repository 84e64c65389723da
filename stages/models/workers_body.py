"""Work on many tensors by threads that compute alone: each operation on one core, several operations at once.

An operation that is split over all cores waits for the slowest of them each time; where other programs run beside it,
that is most of the time.
"""

import ctypes
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

# More tensors at once than this would take more memory and hardly less time: files are read and written.
MOST = 4


def give_back_memory() -> None:
    """Hand free memory back to the system, where the C library keeps it: what was freed in threads above all."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads, as many as there are cores, but at most four."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(min(MOST, os.cpu_count() or 1)) as pool:
            yield pool
    finally:
        torch.set_num_threads(before)
