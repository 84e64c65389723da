"""Milliseconds and peak memory of one call.

On a GPU: CUDA events around the call, median of several. Before each call a spinning kernel keeps the GPU busy while
the host launches what follows, so that the time is the GPU's and not Python's, and a buffer larger than the L2 cache
is written, so that no call finds its inputs there. On a CPU: one call, to show that it runs.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]

WARM_UP_CALLS = 3
FEWEST, MOST = 5, 60
# Several times the 50 MiB of an H200's L2 cache.
FLUSHED_BYTES = 256 * 2**20
# An H200 runs at up to 1.98 GHz; a spin that is too long costs time, one that is too short lets the host be measured.
CYCLES_PER_SECOND = 2.0e9
LONGEST_SPIN_SECONDS = 0.05


def milliseconds(call: Call, *, budget_ms: float) -> float:
    """Median time of `call`, in about `budget_ms` of GPU time after warm-up."""
    if not torch.cuda.is_available():
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)
    for _ in range(WARM_UP_CALLS):
        call()
    torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    host_seconds = time.perf_counter() - started
    torch.cuda.synchronize()
    device_ms = 1000 * (time.perf_counter() - started)
    repeats = int(min(max(budget_ms / max(device_ms, 0.001), FEWEST), MOST))
    cycles = int(min(1.5 * host_seconds + 0.0002, LONGEST_SPIN_SECONDS) * CYCLES_PER_SECOND)
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    starts = [torch.cuda.Event(enable_timing=True) for _ in range(repeats)]
    ends = [torch.cuda.Event(enable_timing=True) for _ in range(repeats)]
    for start, end in zip(starts, ends, strict=True):
        torch.cuda._sleep(cycles)
        flushed.zero_()
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return float(statistics.median(start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)))


def peak_mib(call: Call) -> float | None:
    """Most memory that a warmed-up call needs above what is allocated before it; None on a CPU."""
    if not torch.cuda.is_available():
        return None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return float(torch.cuda.max_memory_allocated() - before) / 2**20


def free_memory(*, thoroughly: bool = False) -> None:
    """Give memory that nobody refers to back to the GPU; cycles that are old are looked for only if `thoroughly`."""
    gc.collect(2 if thoroughly else 0)
    if torch.cuda.is_available():
        # A GPU that an error has made unusable has nothing to give back; the row already says so.
        with contextlib.suppress(RuntimeError):
            torch.cuda.empty_cache()
