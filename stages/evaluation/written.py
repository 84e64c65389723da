"""The files of an evaluation."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_scores(
    metrics: Mapping[str, float | int], predictions: Iterable[Mapping[str, Any]], folder: Path
) -> None:
    """Write metrics.json, and predictions.jsonl with one object for each held-out row."""
    text = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    with (folder / "predictions.jsonl").open("w", encoding="utf-8") as file:
        for prediction in predictions:
            file.write(json.dumps(prediction, ensure_ascii=False) + "\n")
