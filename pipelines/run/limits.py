"""How long a stage may take: as long as any stage may, and no longer than what is left of its run."""

import time
from dataclasses import replace

from tunemill.pipelines.config.robust_keys import Limits
from tunemill.resources.calls import Call
from tunemill.resources.errors import LaunchError


def limited(call: Call, limits: Limits, begun: float) -> Call:
    """The call with the seconds that it may take; `begun`: when its run began, by the clock that only goes forward.

    Raises LaunchError where the run's time is over already.
    """
    found: list[tuple[float, str]] = []
    if limits.stage_seconds is not None:
        found.append((limits.stage_seconds, f"pipeline.stage_timeout_seconds: {limits.stage_seconds:g}"))
    if limits.run_seconds is not None:
        key = f"pipeline.timeout_seconds: {limits.run_seconds:g}"
        left = begun + limits.run_seconds - time.monotonic()
        if left <= 0:
            raise LaunchError(f"not begun: the run has taken its time ({key}). Run again to go on from here")
        found.append((left, key))
    if not found:
        return call
    seconds, limit = min(found)
    return replace(call, seconds=seconds, limit=limit)
