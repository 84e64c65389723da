"""The names that `metric_list` of a task may have: metrics of lm_eval, and those of the package evaluate beside it."""

import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from tunemill.stages.evaluation.harness.modules import PACKAGE
from tunemill.stages.evaluation.harness.task_files import LocalTask

REGISTERED = re.compile(r"@register_metric\(\s*metric=[\"']([^\"']+)[\"']")
# lm_eval asks the Hub for what it does not have itself: there are these without an owner, and `owner/name`.
OF_EVALUATE = frozenset({
    "accuracy", "bertscore", "bleu", "bleurt", "brier_score", "cer", "character", "charcut_mt", "chrf", "code_eval",
    "comet", "competition_math", "confusion_matrix", "coval", "cuad", "exact_match", "f1", "frugalscore", "glue",
    "google_bleu", "indic_glue", "mae", "mahalanobis", "mape", "mase", "matthews_correlation", "mauve", "mean_iou",
    "meteor", "mse", "nist_mt", "pearsonr", "perplexity", "poseval", "precision", "r_squared", "recall",
    "rl_reliability", "roc_auc", "rouge", "sacrebleu", "sari", "seqeval", "smape", "spearmanr", "squad", "squad_v2",
    "super_glue", "ter", "trec_eval", "wer", "wiki_split", "xnli", "xtreme_s",
})  # fmt: skip


@cache
def registered() -> frozenset[str]:
    """Those of the lm_eval that is installed, read without importing it; empty where it cannot be read."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return frozenset()
    return frozenset(_registered_in([Path(spec.origin).parent / "api" / "metrics.py"]))


def _registered_in(files: Iterable[Path]) -> Iterator[str]:
    for file in files:
        with suppress(OSError):
            yield from REGISTERED.findall(file.read_text(encoding="utf-8", errors="replace"))


def unknown_metrics(task: LocalTask) -> Iterator[str]:
    """The names in a task's `metric_list` that nobody computes. A task that scores its rows itself may name any."""
    listed = task.config.get("metric_list")
    if not registered() or not isinstance(listed, list) or task.config.get("process_results") is not None:
        return
    known = registered() | OF_EVALUATE | set(_registered_in(one for one in task.files if one.suffix == ".py"))
    for item in listed:
        name = item.get("metric") if isinstance(item, dict) else None
        if isinstance(name, str) and "/" not in name and name not in known:
            yield name
