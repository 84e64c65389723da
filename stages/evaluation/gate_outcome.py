"""Whether a gate is passed: a pure function of the files of evaluations.

What computes intervals is imported where one has to be computed: most are stored beside the metrics.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.gate import Gate, LeakageGate
from tunemill.stages.evaluation.scored import read_intervals, read_metrics, read_rows, unit_of
from tunemill.stages.evaluation.statistics.directions import better_of

if TYPE_CHECKING:
    from tunemill.stages.evaluation.statistics.comparison import Comparison
    from tunemill.stages.evaluation.statistics.intervals import Interval

State = Literal["passed", "failed", "cannot tell", "not known"]
# Of several bounds the worst outcome counts.
WORST_FIRST: tuple[State, ...] = ("failed", "cannot tell", "passed")
# A mean over rows that is computed again may differ from the metric by its rounding.
ROUNDING = 1e-6
# Sums in another order differ by this, and a value at its bound is within it.
LAST_BITS = 1e-12

Number = float | int | None


@dataclass(frozen=True)
class Outcome:
    """What became of a gate. `node` is the evaluation that it is about, `text` says why, `numbers` with which figures.

    `blocks`: whether what follows has to wait. It is not known while an evaluation is not there.
    """

    gate: str
    node: str
    state: State
    blocks: bool
    text: str
    numbers: Mapping[str, Number] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "node": self.node,
            "state": self.state,
            "blocks": self.blocks,
            "text": self.text,
            "numbers": {
                name: value if value is not None and math.isfinite(value) else None
                for name, value in self.numbers.items()
            },
        }


@dataclass(frozen=True)
class Bound:
    """What one bound says, and its figures."""

    state: State
    text: str
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Sure:
    """Between which values a metric may lie; `rows` is None where it is no mean over rows."""

    low: float
    high: float
    confidence: float
    rows: int | None


@dataclass(frozen=True)
class Row:
    """Of a row its value, what it stands for together with others, and its weight in the mean."""

    value: float
    unit: str | None
    weight: float


def failing(gates: Sequence[Gate], evaluations: Mapping[str, Path]) -> list[Outcome]:
    """The gates that block, with why. `evaluations` are data folders by node, of all that the gates speak of."""
    found = [outcome_of(gate, evaluations) for gate in gates]
    return [one for one in found if one.blocks or one.state == "not known"]


def outcome_of(gate: Gate, evaluations: Mapping[str, Path]) -> Outcome:
    """What becomes of a gate with the data folders of these evaluations, by node."""
    missing = [name for name in gate.nodes if name not in evaluations]
    if missing:
        text = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there"
        return Outcome(gate.words, gate.node, "not known", False, text)
    return outcome(gate, *(evaluations[name] for name in gate.nodes))


def outcome(gate: Gate, evaluation: Path, other: Path | None = None) -> Outcome:
    """What becomes of a gate with the data folder of an evaluation, and of the other one that it compares with.

    An evaluation without the metric fails it, and one whose files are damaged.
    """
    try:
        found = (
            _leakage(gate, evaluation) if isinstance(gate, LeakageGate) else _bounds(gate, evaluation, other)
        )
        bounds = list(found)
    except UserError as error:
        return Outcome(gate.words, gate.node, "failed", True, str(error))
    state = next(state for state in WORST_FIRST if any(bound.state == state for bound in bounds))
    blocks = state == "failed" or (state == "cannot tell" and gate.cannot_tell == "block")
    said = [bound.text for bound in bounds if bound.state == state]
    numbers = {name: value for bound in bounds for name, value in bound.numbers.items()}
    return Outcome(gate.words, gate.node, state, blocks, "; ".join(said), numbers)


def _leakage(gate: LeakageGate, report: Path) -> Iterator[Bound]:
    """Of held-out rows, how many are trained on; `report` is what looked for them."""
    leaked = int(_metric(gate.metric, gate.node, report))
    rows = int(_metric("held_out_rows", gate.node, report))
    text = f"{leaked} of {rows} held-out rows are trained on"
    yield Bound("failed" if leaked else "passed", text, {gate.metric: leaked, "held_out_rows": rows})


def _bounds(gate: Gate, evaluation: Path, other: Path | None) -> Iterator[Bound]:
    if gate.min is not None or gate.max is not None:
        value = _metric(gate.metric, gate.node, evaluation)
        sure = _interval(gate.metric, evaluation, value, gate.confidence)
        low, high = sure.low, sure.high
        numbers: dict[str, Number] = {gate.metric: value, "low": low, "high": high, "rows": sure.rows}
        shown = f"{gate.metric} {value:.4g} ({_among(low, high, sure.confidence, sure.rows)})"
        if gate.min is not None:
            state = _of_bound(-high, -low, -gate.min)
            yield Bound(
                state, f"{shown} {_against(state, f'at least {gate.min:g}')}", {**numbers, "min": gate.min}
            )
        if gate.max is not None:
            state = _of_bound(low, high, gate.max)
            yield Bound(
                state, f"{shown} {_against(state, f'at most {gate.max:g}')}", {**numbers, "max": gate.max}
            )
    if gate.other_node is not None:
        assert other is not None, "a gate that compares has both evaluations"
        yield _drop(gate, gate.other_node, evaluation, other)


def _drop(gate: Gate, other_node: str, evaluation: Path, other: Path) -> Bound:
    """How much worse one model is than the other on the same rows."""
    value = _metric(gate.metric, gate.node, evaluation)
    before = _metric(gate.metric, other_node, other)
    rises = better_of(gate.metric) == "lower"
    drop = low = high = value - before if rises else before - value
    own, others = _rows(gate.metric, evaluation, value), _rows(gate.metric, other, before)
    shared = [key for key in own if key in others]
    if (own or others) and not shared:
        raise UserError(f"{gate.node} and {other_node} have no row in common, so nothing can be compared")
    if shared:
        ones, more = (others, own) if rises else (own, others)
        drop, low, high = _paired(
            [ones[key] for key in shared], [more[key] for key in shared], gate.confidence
        )
    state = _of_bound(low, high, gate.margin)
    # A drop below zero is a gain, and its interval the other way round.
    is_better = drop < 0
    ends = (-high, -low) if is_better else (low, high)
    among = _among(*ends, gate.confidence, len(shared) if shared else None, "shared row")
    by = f"{'better' if is_better else 'worse'} by {abs(drop):.4g}"
    shown = f"{gate.metric} {value:.4g}, that of {gate.max_drop_from} {before:.4g}: {by} ({among}),"
    numbers = {
        gate.metric: value,
        f"{gate.metric}_of_{gate.max_drop_from}": before,
        "drop": drop,
        "drop_low": low,
        "drop_high": high,
        "shared_rows": len(shared),
        "margin": gate.margin,
    }
    return Bound(state, f"{shown} {_against(state, f'at most {gate.margin:g} worse')}", numbers)


def _of_bound(low: float, high: float, largest: float) -> State:
    """Where an interval lies beside the largest value that is allowed."""
    allowed = largest + LAST_BITS * max(1.0, abs(largest))
    if high <= allowed:
        return "passed"
    return "failed" if low > allowed else "cannot tell"


def _against(state: State, asked: str) -> str:
    if state == "cannot tell":
        return f"reaches over the bound, {asked}: too few rows to tell"
    return f"is {'within' if state == 'passed' else 'beyond'} the bound, {asked}"


def _among(low: float, high: float, confidence: float, rows: int | None, unit: str = "row") -> str:
    """How sure a figure is, in words."""
    if rows is None:
        return "no mean over rows, so without an interval"
    counted = f"{rows} {unit}{'' if rows == 1 else 's'}"
    if not math.isfinite(low):
        return f"{counted}, too few for an interval"
    return f"{100 * confidence:g}% interval {low:.4g} to {high:.4g}, {counted}"


def _metric(name: str, node: str, folder: Path) -> float:
    metrics = read_metrics(folder)
    if name not in metrics:
        raise UserError(f"{node} has no figure {name}. It has {', '.join(sorted(metrics))}")
    value = metrics[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{name} of {node} is {json.dumps(value)}, which is no finite number")
    return float(value)


def _interval(name: str, folder: Path, value: float, confidence: float) -> Sure:
    """How sure a metric is; the value alone where it is no mean over rows."""
    stored = read_intervals(folder).get(name)
    is_as_asked = stored is not None and stored["confidence"] == confidence
    rows = [] if is_as_asked else list(_rows(name, folder, value).values())
    # What is made of a mean, as a perplexity is, has the interval that was stored, however sure that is.
    if stored is not None and not rows:
        return Sure(stored["low"], stored["high"], stored["confidence"], stored["rows"])
    if not rows:
        return Sure(value, value, confidence, None)
    weights = [row.weight for row in rows] if any(row.weight != 1 for row in rows) else None
    from tunemill.stages.evaluation.statistics.intervals import interval

    found = interval([row.value for row in rows], [row.unit for row in rows], confidence, weights)
    return Sure(*_ends(found), confidence, len(rows))


def _paired(
    one_rows: Sequence[Row], other_rows: Sequence[Row], confidence: float
) -> tuple[float, float, float]:
    """By how much the mean of the other rows is beyond that of the first, and between which values that may be."""
    from tunemill.stages.evaluation.statistics.comparison import compare
    from tunemill.stages.evaluation.statistics.intervals import interval

    ones, others = [row.value for row in one_rows], [row.value for row in other_rows]
    units, weights = [row.unit for row in one_rows], [row.weight for row in one_rows]
    if all(weight == 1 for weight in weights):
        compared = compare(ones, others, groups=units, confidence=confidence)
        return compared.difference, *_ends(compared)
    off = [other - one for one, other in zip(ones, others, strict=True)]
    mean = math.fsum(map(math.prod, zip(off, weights, strict=True))) / math.fsum(weights)
    return mean, *_ends(interval(off, units, confidence, weights))


def _ends(found: "Interval | Comparison | None") -> tuple[float, float]:
    """Where nothing can be said, everything is possible."""
    if found is None or found.low is None or found.high is None:
        return -math.inf, math.inf
    return found.low, found.high


def _rows(name: str, folder: Path, value: float) -> dict[str, Row]:
    """The rows that a metric is the mean of, by what tells each; nothing where it is no mean of them."""
    fields = read_intervals(folder).get(name) or {"values": name}
    if "values" not in fields:
        return {}
    found: dict[str, Row] = {}
    again: dict[str, int] = {}
    for row in read_rows(folder):
        # The same question may be there twice.
        key = str(row.get("id", row.get("row")))
        again[key] = again.get(key, 0) + 1
        one = row.get(fields["values"])
        if isinstance(one, bool | int | float):
            weight = float(row[fields["weights"]]) if "weights" in fields else 1.0
            found[f"{key} {again[key]}"] = Row(float(one), unit_of(row), weight)
    weights = math.fsum(row.weight for row in found.values())
    mean = math.fsum(row.value * row.weight for row in found.values()) / weights if weights else math.nan
    return found if abs(mean - value) <= ROUNDING * max(1.0, abs(value)) else {}
