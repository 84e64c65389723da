"""What inspect-ai keeps of each sample of a task, as rows of predictions and as values of metrics."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.report import Scalar

# What inspect-ai's own letters count as: right, wrong, partly right, no answer.
LETTERS: Mapping[str, float] = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
# How an answer ended, in the words of other evaluations.
ENDS = {"max_tokens": "length", "model_length": "length"}
# Errors of means, which are told as intervals here.
ERRORS = ("stderr", "std", "var")


def metrics_of(log: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of all scorers, `includes/accuracy`, without their errors."""
    found: dict[str, float] = {}
    for score in (log.get("results") or {}).get("scores", ()):
        for metric in score["metrics"].values():
            name, value = metric["name"].rpartition("/")[2], metric["value"]
            if name not in ERRORS and isinstance(value, int | float) and math.isfinite(value):
                found[f"{score['name']}/{name}"] = float(value)
    return found


def predictions_of(log: Mapping[str, Any], task: str) -> Iterator[dict[str, Any]]:
    """An object for each sample, in the order of the dataset."""
    order = {sample: place for place, sample in enumerate(log["eval"]["dataset"].get("sample_ids") or ())}
    samples = sorted(log.get("samples") or (), key=lambda one: order.get(one["id"], len(order)))
    partly = partly_right(samples)
    for row, sample in enumerate(samples):
        prompt, reference = text_of(sample["input"]), text_of(sample["target"])
        output = sample.get("output") or {}
        choices: list[Any] = output.get("choices") or [{}]
        ended = str(choices[0].get("stop_reason"))
        yield {
            "row": row,
            "task": task,
            "doc_id": sample["id"],
            "id": row_id(prompt, reference),
            "prompt": prompt,
            "reference": reference,
            "prediction": output.get("completion"),
            "tokens": (output.get("usage") or {}).get("output_tokens"),
            "finish_reason": ENDS.get(ended, ended),
            **dict(scores_of(sample, partly)),
        }


def partly_right(samples: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """The scores that some sample has half of: those of none are right or wrong."""
    scored = (item for sample in samples for item in (sample.get("scores") or {}).items())
    return frozenset(name for name, score in scored if score.get("value") == "P")


def scores_of(sample: Mapping[str, Any], partly: frozenset[str]) -> Iterator[tuple[str, Scalar]]:
    """Each score of a sample under its name; of one with several values each under `<name>/<value>`."""
    for name, score in (sample.get("scores") or {}).items():
        value = score.get("value")
        if isinstance(value, Mapping):
            yield from ((f"{name}/{key}", value_of(one, is_part=True)) for key, one in value.items())
        else:
            yield name, value_of(value, is_part=name in partly)


def value_of(value: Any, *, is_part: bool) -> Scalar:
    """Whether a sample is right, or a number; None where it is neither."""
    if isinstance(value, str):
        value = LETTERS.get(value, {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}.get(value.lower()))
        return value if value is None or is_part else bool(value)
    if isinstance(value, bool):
        return value
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def text_of(value: Any) -> str:
    """A text, or those of messages or of several right answers, by the line."""
    if isinstance(value, list):
        return "\n".join(text_of(one) for one in value)
    if isinstance(value, Mapping):
        return text_of(value.get("content", value.get("text", "")))
    return str(value)


def means_of(metrics: Mapping[str, float], predictions: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The metrics that are means over samples, each with the field of the predictions that it is the mean of."""
    found = {}
    for metric, value in metrics.items():
        field = metric.rpartition("/")[0]
        values = [row[field] for row in predictions if row.get(field) is not None]
        if values and math.isclose(sum(values) / len(values), value, abs_tol=1e-9):
            found[metric] = field
    return found
