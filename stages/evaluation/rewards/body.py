"""Scores held-out pairs with a reward model: how often, and by how much, the better conversation is scored higher."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from tunemill.stages.artifacts import Adapter, Model, PreferenceData
from tunemill.stages.errors import RowError
from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, end_of
from tunemill.stages.evaluation.loading_body import load_scored
from tunemill.stages.evaluation.rewards.config import RewardEvaluationConfig
from tunemill.stages.evaluation.rewards.figures import PairScore, figures_of
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.positions_body import check_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.rewards_body import RewardPairs, collate_rewards, padding_of, rewards_of
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Scalar, Workspace

MEANS = {"eval_loss": Mean("loss"), "accuracy": Mean("accuracy"), "margin": Mean("margin")}


def evaluate(
    config: RewardEvaluationConfig,
    model: Model,
    adapter: Adapter | None,
    evaluation_data: PreferenceData,
    out: Workspace,
    report: Report,
) -> None:
    """Write metrics, predictions and intervals.

    Raises RowError where there is no pair, SettingError for a model that does not score sequences.
    """
    be_quiet()
    use_code_of(model.path)
    pairs = RewardPairs(evaluation_data.rows)
    numbers = config.evaluation.numbers(len(pairs))
    if not numbers:
        raise RowError("evaluation data: there is no held-out pair to score. Hold out others, or none.")
    loaded = load_scored(model, adapter, "sequence")
    plain = loaded if adapter is None else loaded.get_base_model()
    check_positions(plain, pairs.longest_row, "evaluation data", report)
    scores = score_pairs(
        loaded,
        padding_of(plain),
        pairs,
        numbers,
        config.eval_batch_size,
        lambda done: report.progress(done, len(numbers), "pairs"),
    )
    metrics = figures_of(scores)
    check_finite("evaluation", "the loss on held-out pairs", metrics["eval_loss"], plain.dtype)
    words = load_words((adapter or model).path)
    rows = [_prediction(number, pairs, score, words) for number, score in zip(numbers, scores, strict=True)]
    write_scores(metrics, rows, MEANS, out.data, report)
    _show_wrong(rows, report)


def score_pairs(
    model: Any,
    padding: int,
    pairs: RewardPairs,
    numbers: Sequence[int],
    batch_size: int,
    on_batch: Callable[[int], None],
) -> list[PairScore]:
    """The scores of these pairs, in their order; pairs of like length share batches."""
    device = next(model.parameters()).device
    found: dict[int, PairScore] = {}
    ordered = sorted(numbers, key=lambda number: (pairs.lengths[number], number))
    for first in range(0, len(ordered), batch_size):
        part = ordered[first : first + batch_size]
        batch = collate_rewards([pairs.read(number) for number in part], padding)
        with torch.no_grad():
            sides = rewards_of(model, {name: tensor.to(device) for name, tensor in batch.items()})
        both = zip(*(side_b.tolist() for side_b in sides), strict=True)
        found |= {number: PairScore(*values) for number, values in zip(part, both, strict=True)}
        on_batch(len(found))
    return [found[number] for number in numbers]


def _prediction(number: int, pairs: RewardPairs, score: PairScore, words: Any) -> dict[str, Any]:
    """A line of predictions.jsonl."""
    pair = pairs.read(number)
    named = (
        str(words.decode(ids.tolist(), skip_special_tokens=True)) for ids in (pair.chosen, pair.rejected)
    )
    return {
        "row": number,
        "id": row_id(*named),
        "chosen": words.decode(pair.chosen.tolist()),
        "rejected": words.decode(pair.rejected.tolist()),
        "chosen_reward": score.chosen,
        "rejected_reward": score.rejected,
        "loss": score.loss,
        "accuracy": score.is_right,
        "margin": score.margin,
    }


def _show_wrong(rows: Sequence[dict[str, Any]], report: Report) -> None:
    """Pairs of which the worse conversation is not scored lower, those that are furthest off first."""

    def margin(row: dict[str, Any]) -> float:
        return float(row["chosen_reward"] - row["rejected_reward"])

    wrong = sorted((row for row in rows if margin(row) <= 0), key=margin)
    if wrong:
        shown: list[list[Scalar]] = [
            [row["row"], end_of(row["chosen"]), end_of(row["rejected"]), round(margin(row), 3)]
            for row in wrong[:WRONG_SHOWN]
        ]
        report.table(
            f"Pairs in the wrong order ({len(wrong)})", ["row", "chosen", "rejected", "margin"], shown
        )
