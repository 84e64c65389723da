"""What lm_eval keeps of each row of a task, as rows of predictions and as values of metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.report import Scalar

# The filter that changes nothing.
NO_FILTER = "none"
# Metrics whose value of a row is whether it is right.
OF_RIGHT = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "exact_match", "em", "is_greedy"})


def metric_name(task: str, metric: str, used: str) -> str:
    """`arc_easy/acc`, and of a filter other than the one that changes nothing `gsm8k/exact_match,strict-match`."""
    name = f"{short(task)}/{metric}"
    return name if used == NO_FILTER else f"{name},{used}"


def short(task: str) -> str:
    """A task's name without that of the group that it was written into."""
    return task.rpartition("::")[2]


def metrics_of(results: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The numbers of all tasks and groups: means and whatever else lm_eval makes of its rows, without its errors."""
    return {name: value for name, value in _figures(results) if math.isfinite(value)}


def not_finite(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names of those that are infinite or no numbers."""
    return [name for name, value in _figures(results) if not math.isfinite(value)]


def _figures(results: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for task, figures in results.items():
        for key, value in figures.items():
            metric, comma, used = key.partition(",")
            if comma and isinstance(value, int | float) and not metric.endswith("_stderr"):
                yield metric_name(task, metric, used), float(value)


def predictions_of(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], means: Mapping[str, frozenset[str]]
) -> Iterator[dict[str, Any]]:
    """An object for each row of each task, whatever filters it went through, in the order of the tasks and rows.

    `means` are the metrics of each task that are means over its rows: only those have a value of each.
    """
    count = 0
    for task, kept in samples.items():
        by_row: dict[int, list[Mapping[str, Any]]] = {}
        for sample in kept:
            by_row.setdefault(sample["doc_id"], []).append(sample)
        for doc_id in sorted(by_row):
            yield {
                "row": count,
                "task": short(task),
                "doc_id": doc_id,
                **prediction_of(task, by_row[doc_id], means[task]),
            }
            count += 1


def prediction_of(task: str, kept: Sequence[Mapping[str, Any]], means: frozenset[str]) -> dict[str, Any]:
    """What is written of one row; `kept` is what each filter made of it."""
    first = kept[0]
    arguments = [tuple(one) for one in first["arguments"]]
    # A text that is scored as a whole is no prompt of anything.
    prompt = str(arguments[0][0]) if len(arguments[0]) > 1 else ""
    reference = reference_of(first["target"], arguments)
    found: dict[str, Any] = {
        "id": row_id(prompt, reference),
        "prompt": prompt,
        "reference": reference,
        **outcome(first, arguments),
    }
    for sample in kept:
        for metric in (name for name in sample["metrics"] if name in means):
            found[metric_name(task, metric, sample["filter"])] = value_of(metric, sample[metric])
    return found


def outcome(sample: Mapping[str, Any], arguments: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """The generated answer, or the likeliest of the given ones with the log-probability of each, in nats."""
    raw = [one[0] for one in sample["resps"]]
    if isinstance(raw[0], str):
        return {"prediction": raw[0]}
    log_p = [float(one[0]) if isinstance(one, tuple | list) else float(one) for one in raw]
    if len(log_p) == 1:
        return {"prediction": None, "log_p": log_p}
    best = max(range(len(log_p)), key=log_p.__getitem__)
    return {"prediction": str(arguments[best][1]).strip(), "log_p": log_p}


def reference_of(target: Any, arguments: Sequence[tuple[Any, ...]]) -> str:
    """The right answer as text; `target` may be its number among those that are compared."""
    if isinstance(target, list) and target and all(isinstance(one, int) for one in target):
        target = target[0]
    compares = len(arguments) > 1 and len(arguments[0]) > 1 and not isinstance(arguments[0][1], dict)
    if compares and isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(arguments):
        return str(arguments[target][1]).strip()
    return str(target)


def value_of(metric: str, value: Any) -> Scalar:
    """A row's value of a metric: whether it is right, or a number; None where it is neither."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return bool(value) if metric in OF_RIGHT and value in (0, 1) else float(value)
