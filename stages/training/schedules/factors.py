"""Schedules as pure functions: how many steps were taken -> what the learning rate is multiplied by."""

import math


def cosine(
    step: int,
    *,
    warmup: int,
    total: int,
    minimum: float = 0.0,
    floor_from: int | None = None,
    cycles: float = 0.5,
    quadratic: bool = False,
) -> float:
    """A rise over `warmup` steps, along a parabola where `quadratic`, then half a cosine down to `minimum`.

    The cosine ends at step `floor_from` (None: at `total`), and from there the rate stays at `minimum`.
    """
    if step < warmup:
        return (step / warmup) ** (2 if quadratic else 1)
    end = total if floor_from is None else floor_from
    if floor_from is not None and step >= end:
        return minimum
    progress = (step - warmup) / max(1, end - warmup)
    return minimum + (1 - minimum) * max(0.0, 0.5 * (1 + math.cos(2 * math.pi * cycles * progress)))


def rex(step: int, *, warmup: int, total: int, minimum: float = 0.0) -> float:
    """Reflected exponential: the rate falls slowly at first and fast at the end.

    As in Axolotl the first step is one step up the rise, and the last one has `minimum`; but a single step trains.
    """
    now = step + 1
    if total == 1:
        return 1.0
    if now <= warmup:
        return now / warmup
    if now >= total:
        return minimum
    left = (total - now) / (total - warmup)
    return minimum + (1 - minimum) * left / (0.1 + 0.9 * left)


def log_sweep(step: int, *, total: int, first: float, last: float) -> float:
    """Equal ratios from `first` at the first step to `last` at the last one."""
    return first * math.pow(last / first, min(step, total - 1) / max(1, total - 1))


def jagged(step: int, *, every: int, warmup: int, anneal: int, minimum: float) -> float:
    """What a schedule is multiplied by that restarts every so many steps.

    From each restart on the rate rises over `warmup` steps from `minimum`, and over the last `anneal` steps before
    the next it falls towards it. The first rise is that of the schedule itself.
    """
    within = step % every
    share = 1.0
    if step >= every and within < warmup:
        share = within / warmup
    elif within > every - anneal:
        share = (every - within) / anneal
    return minimum + (1 - minimum) * share
