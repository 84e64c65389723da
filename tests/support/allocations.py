"""What a call allocates of main memory, by PyTorch's own counts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile


def allocated(run: Callable[[], Any], folder: Path) -> int:
    """Bytes at the peak that were not there before, without what other threads allocate."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    profiled.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    events = sorted((one for one in events if one.get("name") == "[memory]"), key=lambda one: one["ts"])
    first = events[0]["args"]
    return max(one["args"]["Total Allocated"] for one in events) - (first["Total Allocated"] - first["Bytes"])
