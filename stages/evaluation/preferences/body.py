"""Scores one model on held-out preferences, beside the base model that it is compared with."""

from collections.abc import Sequence
from typing import Any

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.data.rows.answer_tokens import AnswerTokens
from tunemill.stages.data.rows.pairs_body import SIDES
from tunemill.stages.errors import RowError
from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, end_of, start_of
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.evaluation.preferences.config import PreferenceEvaluationConfig
from tunemill.stages.evaluation.preferences.figures import (
    AnswerScore,
    figures_of_judged,
    figures_of_judgement,
    figures_of_pair,
    figures_of_pairs,
)
from tunemill.stages.evaluation.preferences.items_body import Item, Items, read_items
from tunemill.stages.evaluation.preferences.log_p_body import (
    Logits,
    logits_of,
    score_answers,
    without_adapter,
)
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Scalar, Workspace

Scores = Sequence[AnswerScore]
# Metrics that are no plain means of what the predictions have under their name.
MEANS = {"kl": Mean("kl", "kl_tokens")}


def evaluate(
    config: PreferenceEvaluationConfig,
    model: Model,
    adapter: Adapter | None,
    reference: Model | None,
    evaluation_data: PreferenceData,
    out: Workspace,
    report: Report,
) -> None:
    """Write metrics, predictions and intervals.

    An adapter is compared with the model without it, another model with `reference`, and without one with itself.
    Raises RowError where no row is left to score.
    """
    be_quiet()
    tokens = AnswerTokens(load_words(model.path), config.sequence_len)
    held_out = read_items(evaluation_data.rows, tokens, config.evaluation.max_rows)
    check_items(held_out, report)
    use_code_of(model.path)
    loaded = load_scored(model, adapter)
    plain = loaded if adapter is None else loaded.get_base_model()
    # By side, so that each has its scores in one piece.
    answers = [item.answers[side] for side in range(len(held_out.sides)) for item in held_out.items]
    check_positions(plain, max(len(ids) for ids, _ in answers), "evaluation data", report)
    scores = score_answers(
        loaded,
        _reference_of(loaded, adapter, reference),
        answers,
        config.eval_batch_size,
        lambda done: report.progress(done, len(answers), "answers"),
    )
    check_finite(
        "evaluation", "the log probability of the held-out answers", sum(s.log_p for s in scores), plain.dtype
    )
    count = len(held_out.items)
    by_side = [scores[first : first + count] for first in range(0, len(scores), count)]
    is_pair = held_out.sides == SIDES
    metrics: dict[str, float | int] = dict(
        figures_of_pairs(*by_side) if is_pair else _figures_of_judged(held_out.items, scores)
    )
    metrics["rows"] = count
    if held_out.left_out:
        metrics["left_out_rows"] = held_out.left_out
    rows = [
        _prediction(item, held_out.sides, of_item)
        for item, of_item in zip(held_out.items, zip(*by_side, strict=True), strict=True)
    ]
    write_scores(metrics, rows, {name: MEANS.get(name, Mean(name)) for name in rows[0]}, out.data, report)
    (_show_wrong_pairs if is_pair else _show_wrong_judgements)(rows, report)


def check_items(held_out: Items, report: Report) -> None:
    """Say how many rows are left out; refuse them where none is left."""
    why = "with BOS and EOS, cut off after sequence_len, nothing is left of an answer, or both are the same"
    if not held_out.items:
        raise RowError(
            f"evaluation data: none of {held_out.left_out} rows is left to score: {why}. Raise sequence_len, or hold "
            f"out others"
        )
    if held_out.left_out:
        report.log(f"warning: {held_out.left_out} held-out rows are left out: {why}")


def _reference_of(loaded: Any, adapter: Adapter | None, reference: Model | None) -> Logits | None:
    if adapter is not None:
        return without_adapter(loaded)
    if reference is None:
        return None
    use_code_of(reference.path)
    return logits_of(load_scored(reference, None))


def _figures_of_judged(items: Sequence[Item], scores: Scores) -> dict[str, float]:
    judged = list(zip(items, scores, strict=True))
    return figures_of_judged(
        [score for item, score in judged if item.texts["label"]],
        [score for item, score in judged if not item.texts["label"]],
    )


def _prediction(item: Item, sides: Sequence[str], scores: Scores) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    asked = (item.texts["prompt"] or "", *(item.texts[side] for side in sides))
    found: dict[str, Any] = {"row": item.row, "id": row_id(*asked), **item.texts}
    for side, score in zip(sides, scores, strict=True):
        found[f"{side}_log_p"] = score.log_p
        found[f"{side}_reference_log_p"] = score.reference_log_p
        found[f"{side}_tokens"] = score.tokens
    if len(scores) == 1:
        found |= figures_of_judgement(scores[0], desirable=bool(item.texts["label"]))
    else:
        found |= figures_of_pair(*scores)
        chosen, rejected = (score.log_p for score in scores)
        found["preferred"] = "neither" if chosen == rejected else SIDES[int(rejected > chosen)]
    return found


def _show_wrong_pairs(rows: Sequence[dict[str, Any]], report: Report) -> None:
    """Pairs of which the rejected answer is likelier, those with the largest margin first."""
    wrong = sorted(
        (row for row in rows if row["preferred"] == "rejected"),
        key=lambda row: row["chosen_log_p"] - row["rejected_log_p"],
    )
    if wrong:
        shown: list[list[Scalar]] = [
            [
                row["row"],
                end_of(row["prompt"]),
                start_of(row["chosen"]),
                start_of(row["rejected"]),
                round(row["chosen_log_p"] - row["rejected_log_p"], 3),
            ]
            for row in wrong[:WRONG_SHOWN]
        ]
        report.table(
            f"Rejected answers that are likelier ({len(wrong)})",
            ["row", "prompt", "chosen", "rejected", "margin"],
            shown,
        )


def _show_wrong_judgements(rows: Sequence[dict[str, Any]], report: Report) -> None:
    """Desirable answers that have become less likely, and undesirable ones that have become likelier."""
    gained = [(row, row["completion_log_p"] - row["completion_reference_log_p"]) for row in rows]
    wrong = [(row, reward) for row, reward in gained if (reward < 0 if row["label"] else reward > 0)]
    if wrong:
        wrong.sort(key=lambda found: -abs(found[1]))
        shown: list[list[Scalar]] = [
            [row["row"], end_of(row["prompt"]), start_of(row["completion"]), row["label"], round(reward, 3)]
            for row, reward in wrong[:WRONG_SHOWN]
        ]
        report.table(
            f"Answers that moved the wrong way ({len(wrong)})",
            ["row", "prompt", "completion", "desirable", "reward"],
            shown,
        )
