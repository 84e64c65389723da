"""The rows as a CSV file with everything, and as Markdown for people: one line per kernel, shape and dtype."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.kernels.row import TRAINING_STEP, Row
from benchmarks.kernels.targets import checked, rate
from benchmarks.kernels.ways import AXOLOTL, BITSANDBYTES, COMPILED, EAGER, LIGER, OURS, PEFT, UNSLOTH

Limits = dict[str, Any]

# What NVIDIA states for dense bfloat16 on an H100 and H200 (SXM).
STATED_FLOPS_PER_SECOND = 989e12
COLUMNS = (EAGER, COMPILED, LIGER, PEFT)
OTHERS = (UNSLOTH, AXOLOTL, BITSANDBYTES)
TRAINING_NAMES = {EAGER: "kernels off", OURS: "kernels on"}
SHORT_NOTE = 30
LEGEND = (
    "Times are forward (without gradients) / forward and backward, in ms of the GPU: median, L2 cache flushed, "
    "launch latency hidden. Shares of copy and matmul count the bytes and FLOPs that no implementation can avoid, as "
    "the file of each kernel under `benchmarks/kernels/` states. MiB: peak above the inputs. Off: norm of the "
    "difference from the plain reference over its norm, the largest of result and gradients. In a competitor's "
    "column: ms, MiB, and how many times as fast ours is."
)
TRAINING_LEGEND = (
    "Llamas of 1B and 8B, one packed row of several documents; MFU of useful work over the measured matrix product and "
    "over 989 TFLOP/s. What is counted stands in `benchmarks/kernels/training_step.py`."
)


def ratios(row: Row, limits: Limits) -> dict[str, float | None]:
    """Shares of what the GPU can do."""
    copy, matmul = limits["bytes_per_second"], limits["flops_per_second"]
    return {
        "forward_of_copy": rate(row.forward_bytes, row.forward_ms, copy),
        "both_of_copy": rate(row.both_bytes, row.both_ms, copy),
        "forward_of_matmul": rate(row.forward_flops, row.forward_ms, matmul),
        "both_of_matmul": rate(row.both_flops, row.both_ms, matmul),
        "both_of_989_tflops": rate(row.both_flops, row.both_ms, STATED_FLOPS_PER_SECOND),
    }


def write_csv(path: Path, rows: list[Row], limits: Limits) -> None:
    """One line per row, with shares of the limits and where they were measured."""
    versions = limits["versions"]
    place = {
        "date": today(),
        "device": limits["device"],
        "torch": versions["torch"],
        "triton": versions["triton"],
        "copy_bytes_per_second": limits["bytes_per_second"],
        "matmul_flops_per_second": limits["flops_per_second"],
    }
    lines = [row.as_dict() | ratios(row, limits) | place for row in rows]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def write_markdown(path: Path, rows: list[Row], limits: Limits, seconds: float, *, smoke: bool) -> None:
    """Header, kernels, training steps, notes, targets."""
    notes: list[str] = []
    kernels = [row for row in rows if row.kernel != TRAINING_STEP]
    steps = [row for row in rows if row.kernel == TRAINING_STEP]
    parts = [
        header(limits, seconds, smoke=smoke),
        kernel_table(kernels, limits, notes),
        "## Training step",
        TRAINING_LEGEND,
        training_table(steps, limits, notes),
    ]
    if notes:
        parts += ["## Notes", "\n".join(f"{number}. {note}" for number, note in enumerate(notes, start=1))]
    if not smoke:
        parts += ["## Targets (on one H200)", target_list(rows, limits)]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def target_list(rows: list[Row], limits: Limits) -> str:
    """One line per target."""
    targets = checked(rows, limits["bytes_per_second"])
    return "\n".join(f"- {one.state}: {one.goal}{f' ({one.found})' if one.found else ''}" for one in targets)


def header(limits: Limits, seconds: float, *, smoke: bool) -> str:
    """Where, when, with what."""
    versions = ", ".join(f"{name} {version}" for name, version in limits["versions"].items())
    copied, multiplied = limits["bytes_per_second"] / 1e12, limits["flops_per_second"] / 1e12
    lines = [
        "# Kernels",
        f"{today()}, {limits['device']}. {versions}. `python benchmarks/kernels/run.py`, {seconds:.0f} s.",
        f"Measured in the same run: copy {copied:.2f} TB/s, bfloat16 matrix product {multiplied:.0f} TFLOP/s.",
        LEGEND,
    ]
    if smoke:
        lines.insert(1, "**A smoke run with tiny shapes: the numbers mean nothing.**")
    return "\n\n".join(lines)


def kernel_table(rows: list[Row], limits: Limits, notes: list[str]) -> str:
    """One line per case."""
    heads = [
        "kernel",
        "shape",
        "dtype",
        "tunemill ms",
        "of copy",
        "of matmul",
        "MiB",
        "off",
        *COLUMNS,
        "others",
    ]
    lines = [line(heads), line("---" for _ in heads)]
    for case in sorted(dict.fromkeys(row.case for row in rows), key=lambda case: case[0]):
        ways = {row.way: row for row in rows if row.case == case}
        ours = ways.get(OURS)
        shares = ratios(ours, limits) if ours else {}
        own = [
            cell(ours, None, notes),
            both_of(shares, "of_copy"),
            both_of(shares, "of_matmul"),
            f"{ours.peak_mib:,.0f}" if ours and ours.peak_mib is not None else "",
            f"{ours.difference:.1e}" if ours and ours.difference is not None else "",
        ]
        others = [f"{way}: {cell(ways[way], ours, notes)}" for way in OTHERS if way in ways]
        columns = [cell(ways.get(way), ours, notes) for way in COLUMNS]
        lines.append(line([*case, *own, *columns, "; ".join(others)]))
    return "\n".join(lines)


def cell(row: Row | None, ours: Row | None, notes: list[str]) -> str:
    """Times of one way; beside `ours`, memory and the ratio as well; a note where there are none."""
    if row is None:
        return ""
    times = [f"{value:.3f}" for value in (row.forward_ms, row.both_ms) if value is not None]
    parts = [" / ".join(times)] if times else []
    if ours is not None and row.peak_mib is not None:
        parts.append(f"{row.peak_mib:,.0f} MiB")
    if ours is not None and ours.ms and row.ms:
        parts.append(f"{row.ms / ours.ms:.2f}x")
    if row.note:
        parts.append(noted(row.note, notes))
    return ", ".join(parts)


def noted(note: str, notes: list[str]) -> str:
    """A short note itself; of a long one its number."""
    text = note.replace("|", "/")
    if len(text) <= SHORT_NOTE:
        return text
    if text not in notes:
        notes.append(text)
    first = "FAILED, note" if text.startswith("FAILED") else "note"
    return f"{first} {notes.index(text) + 1}"


def both_of(shares: dict[str, float | None], what: str) -> str:
    """Share forward / share forward and backward."""
    found = [shares.get(f"forward_{what}"), shares.get(f"both_{what}")]
    return " / ".join(f"{share:.2f}" for share in found if share is not None)


def training_table(rows: list[Row], limits: Limits, notes: list[str]) -> str:
    """One line per way of a training step."""
    heads = [
        "setting",
        "way",
        "tokens/s",
        "ms",
        "MFU",
        "MFU of 989",
        "peak GiB",
        "loss 1",
        "last loss",
        "note",
    ]
    lines = [line(heads), line("---" for _ in heads)]
    order = list(dict.fromkeys(row.case for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row.case)):
        shares = ratios(row, limits)
        cells = [
            row.shape,
            TRAINING_NAMES.get(row.way, row.way),
            number(row.tokens_per_second, ",.0f"),
            number(row.both_ms, ".1f"),
            number(shares["both_of_matmul"], ".3f"),
            number(shares["both_of_989_tflops"], ".3f"),
            number(None if row.peak_mib is None else row.peak_mib / 1024, ".2f"),
            number(row.first_loss, ".4f"),
            number(row.last_loss, ".4f"),
            noted(row.note, notes),
        ]
        lines.append(line(cells))
    return "\n".join(lines)


def number(value: float | None, form: str) -> str:
    """The number, or nothing."""
    return "" if value is None else format(value, form)


def line(cells: Iterable[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def today() -> str:
    """The date, in UTC."""
    return datetime.now(UTC).date().isoformat()
