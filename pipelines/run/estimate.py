"""How long a run will take, going by how long its nodes took last time."""

from collections.abc import Sequence
from dataclasses import dataclass

from tunemill.pipelines.graph.plan import Planned

MINUTE, HOUR, DAY = 60, 3600, 86400


@dataclass(frozen=True)
class Estimate:
    """`seconds` are those of the nodes that have run before, None where no node has; `known` says how many have."""

    seconds: float | None
    known: int
    nodes: int

    def __str__(self) -> str:
        if self.seconds is None:
            return "none of them has run before, so how long they take is not known"
        so_many = "" if self.known == self.nodes else f" ({self.known} of {self.nodes} nodes have run before)"
        return f"about {about(self.seconds)}, going by the last times{so_many}"


def estimate(plan: Sequence[Planned]) -> Estimate:
    """The time of what a plan runs, if every node whose turn comes is computed."""
    times = [item.last_seconds for item in plan if item.state == "run"]
    known = [seconds for seconds in times if seconds is not None]
    return Estimate(round(sum(known), 3) if known or not times else None, len(known), len(times))


def about(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 10 min`, `2 d 3 h`."""
    if seconds < 1:
        return "1 s"
    if round(seconds) < MINUTE:
        return f"{round(seconds)} s"
    if round(seconds / MINUTE) < HOUR // MINUTE:
        return f"{round(seconds / MINUTE)} min"
    if round(seconds / HOUR) < DAY // HOUR:
        hours, minutes = divmod(round(seconds / MINUTE), 60)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / HOUR), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
