"""The goals of this repository's kernels on one H200, checked against the rows of a run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.kernels.row import TRAINING_STEP, Row
from benchmarks.kernels.ways import AXOLOTL, EAGER, LIGER, OURS, PEFT

ELEMENTWISE = ("swiglu", "geglu", "rms_norm", "rope")
OF_COPY = 0.85
NAIVE_MEMORY = 10.0
TIMES_PEFT = 1.3
MET, MISSED, NOT_MEASURED = "met", "missed", "not measured"


@dataclass(frozen=True)
class Target:
    """A goal, whether it was reached, and the numbers."""

    goal: str
    state: str
    found: str


def checked(rows: list[Row], bytes_per_second: float) -> list[Target]:
    """Every goal."""
    return [
        *(of_copy_bandwidth(rows, kernel, bytes_per_second) for kernel in ELEMENTWISE),
        loss_memory(rows),
        faster(rows, "linear_cross_entropy", "v=151936", LIGER, 1.0),
        faster(rows, "lora_mlp", "", PEFT, TIMES_PEFT),
        faster(rows, "lora_mlp", "", LIGER, 1.0),
        faster(rows, "lora_mlp", "", AXOLOTL, 1.0),
        training(rows),
    ]


def of_copy_bandwidth(rows: list[Row], kernel: str, bytes_per_second: float) -> Target:
    """Forward, and forward with backward, of every shape and dtype."""
    goal = f"{kernel}: {OF_COPY:.0%} of the copy bandwidth"
    shares = [
        (share, f"{direction} {row.shape} {row.dtype}")
        for row in rows
        if row.kernel == kernel and row.way == OURS
        for direction, share in (
            ("forward", rate(row.forward_bytes, row.forward_ms, bytes_per_second)),
            ("both", rate(row.both_bytes, row.both_ms, bytes_per_second)),
        )
        if share is not None
    ]
    if not shares:
        return Target(goal, NOT_MEASURED, "")
    (least, where), (most, _) = min(shares), max(shares)
    reached = sum(share >= OF_COPY for share, _ in shares)
    found = f"{least:.0%} ({where}) to {most:.0%}; {reached} of {len(shares)} reach it"
    return Target(goal, MET if least >= OF_COPY else MISSED, found)


def rate(work: int | None, milliseconds: float | None, limit: float) -> float | None:
    """Share of a limit per second; None for no work or no time."""
    return work / (milliseconds / 1000) / limit if work and milliseconds else None


def pairs_of(rows: list[Row], kernel: str, part: str, other: str) -> list[tuple[Row, Row]]:
    """Our rows of a kernel whose shape contains `part`, each beside the other way's."""
    others = {row.case: row for row in rows if row.way == other}
    ours = [row for row in rows if row.way == OURS and row.kernel == kernel and part in row.shape]
    return [(row, others[row.case]) for row in ours if row.case in others]


def loss_memory(rows: list[Row]) -> Target:
    """Peak memory of the loss beside the naive one's."""
    goal = "linear_cross_entropy at v=151936: at most a tenth of the naive peak memory"
    ratios = [
        naive.peak_mib / ours.peak_mib
        for ours, naive in pairs_of(rows, "linear_cross_entropy", "v=151936", EAGER)
        if ours.peak_mib and naive.peak_mib
    ]
    if not ratios:
        return Target(goal, NOT_MEASURED, "")
    found = ", ".join(f"1/{ratio:.1f}" for ratio in ratios)
    return Target(goal, MET if min(ratios) >= NAIVE_MEMORY else MISSED, found)


def faster(rows: list[Row], kernel: str, part: str, other: str, times: float) -> Target:
    """Forward and backward at least `times` as fast as another way."""
    how = "faster than" if times == 1.0 else f"{times:g} times as fast as"
    goal = f"{kernel}{f' at {part}' if part else ''}: forward and backward {how} {other}"
    ratios = [
        theirs.both_ms / ours.both_ms
        for ours, theirs in pairs_of(rows, kernel, part, other)
        if ours.both_ms and theirs.both_ms
    ]
    if not ratios:
        return Target(goal, NOT_MEASURED, "")
    reached = min(ratios) >= times if times > 1.0 else min(ratios) > 1.0
    return Target(goal, MET if reached else MISSED, ", ".join(f"{ratio:.2f} times" for ratio in ratios))


def training(rows: list[Row]) -> Target:
    """More tokens per second than every other way that was measured, in every setting."""
    goal = "training step: ahead of every other row"
    steps = [row for row in rows if row.kernel == TRAINING_STEP and row.tokens_per_second]
    found, ahead = [], True
    for ours in (row for row in steps if row.way == OURS):
        rivals = [row for row in steps if row.case == ours.case and row.way != OURS]
        if not rivals or not ours.tokens_per_second:
            continue
        best = max(rivals, key=lambda row: row.tokens_per_second or 0.0)
        ratio = ours.tokens_per_second / (best.tokens_per_second or 1.0)
        ahead = ahead and ratio > 1.0
        found.append(f"{ours.shape}: {ratio:.2f} times {best.way}")
    if not found:
        return Target(goal, NOT_MEASURED, "")
    return Target(goal, MET if ahead else MISSED, "; ".join(found))
