"""Scores a process reward model on held-out answers: its loss, the steps that it judges right, the first wrong ones."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, EvaluationData, Model
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.data.rows.mapped import Rows, batches_by_length
from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, start_of
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.steps.config import StepEvaluationConfig
from tunemill.stages.evaluation.steps.scores import (
    WRONG,
    Judged,
    first_wrong,
    first_wrong_scores,
    step_accuracy,
)
from tunemill.stages.evaluation.steps.steps import Step, prompt_end, steps_of
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.positions_body import check_positions, table_of_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Scalar, Workspace


@dataclass(frozen=True)
class Verdict:
    """What the model says of one answer: [N, C] log probabilities of its N judged steps."""

    row: int
    steps: Sequence[Step]
    log_p_nc: Any

    @property
    def classes(self) -> Judged:
        """The classes of the steps, as they are and as they are predicted."""
        return [step.label for step in self.steps], self.log_p_nc.argmax(dim=-1).tolist()

    @property
    def losses_n(self) -> Any:
        """Cross entropy (nats) of each step."""
        labels = torch.tensor([step.label for step in self.steps])
        return -self.log_p_nc.gather(1, labels[:, None])[:, 0]

    @property
    def not_wrong(self) -> list[float]:
        """Of each step the probability that it is not wrong."""
        chances: list[float] = (1 - self.log_p_nc[:, WRONG].exp()).tolist()
        return chances


MEANS = {
    "eval_loss": Mean("loss", "judged_steps"),
    "step_accuracy": Mean("step_accuracy", "judged_steps"),
    "first_wrong_found": Mean("first_wrong_found"),
    "right_answers_passed": Mean("right_answers_passed"),
}


def evaluate(
    config: StepEvaluationConfig,
    model: Model,
    adapter: Adapter | None,
    evaluation_data: EvaluationData,
    out: Workspace,
    report: Report,
) -> None:
    """Write metrics, predictions and intervals. Raises SettingError for a model without a head that judges tokens."""
    be_quiet()
    use_code_of(model.path)
    rows = Rows(evaluation_data.rows)
    numbers = config.evaluation.numbers(len(rows))
    loaded = load_scored(model, adapter, "token")
    plain = loaded.get_base_model() if adapter is not None else loaded
    check_positions(plain, int(rows.lengths[: len(numbers)].max(initial=0)), "evaluation data", report)
    verdicts = judge(loaded, rows, numbers, config.eval_batch_size, table_of_positions(plain), report)
    eval_loss = float(torch.cat([one.losses_n for one in verdicts]).double().mean())
    check_finite("evaluation", "the loss on held-out steps", eval_loss, plain.dtype)
    judged = [one.classes for one in verdicts]
    metrics: dict[str, float | int] = {
        "eval_loss": eval_loss,
        "step_accuracy": step_accuracy(judged),
        **first_wrong_scores(judged),
        "steps": sum(len(one.steps) for one in verdicts),
        "rows": len(numbers),
    }
    if "first_wrong_f1" not in metrics:
        report.log("no F1 of the first wrong step: that takes held-out answers with and without one")
    words = load_words((adapter or model).path)
    predictions = [_prediction(one, rows, words) for one in verdicts]
    write_scores(metrics, predictions, MEANS, out.data, report)
    _show_missed(predictions, report)


def judge(
    model: Any, rows: Rows, numbers: Sequence[int], batch_size: int, positions: int | None, report: Report
) -> list[Verdict]:
    """What the model says of the steps of these rows, in their order."""
    collate = Collator("padded", None, positions=positions, own_labels=True)
    device = next(model.parameters()).device
    found: dict[int, Verdict] = {}
    for batch in batches_by_length(rows, numbers, batch_size, sys.maxsize):
        tensors = collate([[(rows.ids(row), rows.labels(row))] for row in batch])
        del tensors["labels"]
        with torch.no_grad():
            given = {name: tensor.to(device) for name, tensor in tensors.items()}
            logits_blc = model(**given, use_cache=False).logits.float().cpu()
        for row, logits_lc in zip(batch, logits_blc, strict=True):
            steps = steps_of(rows, row)
            found[row] = Verdict(row, steps, logits_lc[[step.place for step in steps]].log_softmax(dim=-1))
        report.progress(len(found), len(numbers), "rows")
    return [found[row] for row in numbers]


def _prediction(verdict: Verdict, rows: Rows, words: Any) -> dict[str, Any]:
    """A row of predictions.jsonl."""
    ids = rows.ids(verdict.row).tolist()
    labels, predicted = verdict.classes

    def text(start: int, end: int) -> str:
        return str(words.decode(ids[start:end], skip_special_tokens=True))

    steps = [
        {"text": text(step.start, step.end), "label": step.label, "prediction": one, "probability": chance}
        for step, one, chance in zip(verdict.steps, predicted, verdict.not_wrong, strict=True)
    ]
    prompt = text(0, prompt_end(rows, verdict.row))
    return {
        "row": verdict.row,
        "id": row_id(prompt, *(str(step["text"]) for step in steps)),
        "loss": float(verdict.losses_n.mean()) if steps else None,
        "judged_steps": len(steps),
        "prompt": prompt,
        "steps": steps,
        "first_wrong": first_wrong(labels),
        "predicted_first_wrong": first_wrong(predicted),
        "step_accuracy": step_accuracy([(labels, predicted)]) if steps else None,
        "first_wrong_found": None,
        "right_answers_passed": None,
        **{name: bool(share) for name, share in first_wrong_scores([(labels, predicted)]).items()},
    }


def _show_missed(predictions: Sequence[dict[str, Any]], report: Report) -> None:
    missed = [one for one in predictions if one["first_wrong"] != one["predicted_first_wrong"]]
    if not missed:
        return
    shown: list[list[Scalar]] = []
    for one in missed[:WRONG_SHOWN]:
        # The first step on which they disagree.
        place = min(p for p in (one["first_wrong"], one["predicted_first_wrong"]) if p is not None)
        step = one["steps"][place]
        shown.append(
            [one["row"], place, start_of(step["text"]), step["label"], round(step["probability"], 3)]
        )
    columns = ["row", "step", "text", "label", "probability"]
    report.table(f"Answers whose first wrong step is another ({len(missed)})", columns, shown)
