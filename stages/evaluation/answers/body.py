"""Scores one model on held-out rows: loss over trained tokens, and generated answers compared as text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunemill.stages.artifacts import Adapter, EvaluationData, Model
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.answers.config import EvaluationConfig
from tunemill.stages.evaluation.answers.divergence_body import Divergence, divergences, mean_divergence
from tunemill.stages.evaluation.answers_body import answer
from tunemill.stages.evaluation.batching_body import batching_for
from tunemill.stages.evaluation.comparison import is_right, reader_of, special_ids
from tunemill.stages.evaluation.excerpts import WRONG_SHOWN, end_of, start_of
from tunemill.stages.evaluation.loading_body import load_answering
from tunemill.stages.evaluation.perplexity import perplexity_of
from tunemill.stages.evaluation.questions import Question, question_of
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.evaluation.written import Mean, write_scores
from tunemill.stages.models.finite import check_finite
from tunemill.stages.models.loss_body import RowLoss, mean_loss, row_losses
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.packed_loss_body import packed_row_losses
from tunemill.stages.models.positions_body import check_positions, table_of_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.teacher_body import load_teacher, shared_tokens, teacher_folder
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Scalar, Workspace


@dataclass(frozen=True)
class Prediction:
    """One row of predictions.jsonl. All but the first four are None where the row has no answer to generate.

    `reference` and `prediction` are without the model's end token. `ended`: whether the answer ends with a stop
    token; None where the reference does not.
    """

    row: int
    id: str
    loss: float | None
    loss_tokens: int
    prompt: str | None = None
    reference: str | None = None
    prediction: str | None = None
    exact_match: bool | None = None
    ended: bool | None = None


def evaluate(
    config: EvaluationConfig,
    model: Model,
    adapter: Adapter | None,
    evaluation_data: EvaluationData,
    out: Workspace,
    report: Report,
    teacher_model: Model | None = None,
) -> None:
    """Write metrics, predictions and intervals. Raises UserError where no held-out token is trained."""
    be_quiet()
    use_code_of(model.path)
    rows = Rows(evaluation_data.rows)
    numbers = config.evaluation.numbers(len(rows))
    loaded, end_ids = load_answering(model, adapter)
    plain = loaded.get_base_model() if adapter is not None else loaded
    check_positions(plain, int(rows.lengths[: len(numbers)].max(initial=0)), "evaluation data", report)
    score = packed_row_losses if config.eval_sample_packing else row_losses
    losses = score(loaded, rows, numbers, config.eval_batch_size)
    if not any(loss.tokens for loss in losses):
        raise UserError(
            f"evaluation data: none of {len(numbers)} rows has a token to score (all labels are -100). Look at "
            f"roles_to_train, train_on_inputs and sequence_len of the test datasets."
        )
    eval_loss = mean_loss(losses)
    check_finite("evaluation", "the loss on held-out rows", eval_loss, plain.dtype)
    metrics: dict[str, float | int] = {
        "eval_loss": eval_loss,
        "perplexity": perplexity_of(eval_loss),
        "rows": len(numbers),
    }
    words = load_words((adapter or model).path)
    questions = _questions(config, rows, numbers, words, end_ids, report)
    answers = answer(
        loaded,
        questions,
        batching=batching_for(loaded, questions, config.eval_batch_size, report),
        batch_size=config.eval_batch_size,
        max_new_tokens=config.eval_max_new_tokens,
        positions=table_of_positions(plain),
        on_batch=lambda done: report.progress(done, len(questions), "rows"),
    )
    predictions = _predictions(rows, numbers, losses, questions, answers, words, config.eval_max_new_tokens)
    if questions:
        metrics["answers"] = len(questions)
    if questions and config.evaluation.exact_match:
        metrics["exact_match"] = sum(p.exact_match is True for p in predictions) / len(questions)
    if questions and config.text_scores:
        # Its package is an extra.
        from tunemill.stages.evaluation.answers.text_scores_body import text_scores

        metrics |= text_scores(config.text_scores, questions, answers, words)
    said: Sequence[Divergence] = ()
    if teacher_model is not None or config.teacher is not None:
        said = _divergences(config, loaded, (adapter or model).path, teacher_model, rows, numbers, report)
        metrics |= mean_divergence(said)
    write_scores(metrics, _lines(predictions, said), MEANS, out.data, report)
    _show_wrong(predictions, report)


def _divergences(
    config: EvaluationConfig,
    student: Any,
    tokenizer: Path,
    teacher_model: Model | None,
    rows: Rows,
    numbers: Sequence[int],
    report: Report,
) -> list[Divergence]:
    """How far the model is from its teacher on each row. Raises SettingError for a teacher of other tokens."""
    folder = teacher_folder(config, teacher_model)
    teacher = load_teacher(folder, is_artifact=teacher_model is not None)
    check_positions(teacher, int(rows.lengths[: len(numbers)].max(initial=0)), "evaluation data", report)
    vocabularies = (one.get_output_embeddings().weight.shape[0] for one in (student, teacher))
    tokens = shared_tokens(tokenizer, folder, min(vocabularies))
    return divergences(student, teacher, rows, numbers, config.eval_batch_size, tokens)


def _questions(
    config: EvaluationConfig,
    rows: Rows,
    numbers: Sequence[int],
    words: Any,
    end_ids: frozenset[int],
    report: Report,
) -> list[Question]:
    if not config.evaluation.exact_match and not config.text_scores:
        return []
    ends = end_ids | ({words.eos_token_id} - {None})
    special = special_ids(words)
    found = [question_of(rows, row, frozenset(ends), special) for row in numbers]
    questions = [question for question in found if question is not None]
    if len(questions) < len(numbers):
        report.log(
            f"{len(numbers) - len(questions)} rows have no prompt before a trained answer: no exact match there"
        )
    long = sum(len(question.reference) > config.eval_max_new_tokens for question in questions)
    if long:
        report.log(
            f"{long} references are longer than eval_max_new_tokens {config.eval_max_new_tokens}: counted wrong"
        )
    return questions


MEANS = {
    "eval_loss": Mean("loss", "loss_tokens"),
    "perplexity": Mean("loss", "loss_tokens", perplexity_of),
    "exact_match": Mean("exact_match"),
    "teacher_kl": Mean("teacher_kl", "loss_tokens"),
    "teacher_agreement": Mean("teacher_agreement", "loss_tokens"),
}


def _predictions(
    rows: Rows,
    numbers: Sequence[int],
    losses: Sequence[RowLoss],
    questions: Sequence[Question],
    answers: Mapping[int, list[int]],
    words: Any,
    max_new_tokens: int,
) -> list[Prediction]:
    by_row = {question.row: question for question in questions}
    reader = reader_of(words)
    predictions = []
    for row, loss in zip(numbers, losses, strict=True):
        mean = loss.total / loss.tokens if loss.tokens else None
        question = by_row.get(row)
        asked = (question.prompt, question.reference) if question else ((), rows.ids(row).tolist())
        named = row_id(*(str(words.decode(ids, skip_special_tokens=True)) for ids in asked))
        if question is None:
            predictions.append(Prediction(row=row, id=named, loss=mean, loss_tokens=loss.tokens))
            continue
        tokens = answers[row]
        fits = len(question.reference) <= max_new_tokens
        predictions.append(
            Prediction(
                row=row,
                id=named,
                loss=mean,
                loss_tokens=loss.tokens,
                prompt=reader.text(question.prompt),
                reference=reader.text(question.without_end(question.reference)),
                prediction=reader.text(question.without_end(tokens)),
                exact_match=fits and is_right(question, tokens, reader),
                ended=bool(tokens) and tokens[-1] in question.stops if question.stopped else None,
            )
        )
    return predictions


def _lines(predictions: Sequence[Prediction], said: Sequence[Divergence]) -> list[Mapping[str, Scalar]]:
    """What is written of each row."""
    return [
        {**prediction.__dict__, **(said[place].figures if said else {})}
        for place, prediction in enumerate(predictions)
    ]


def _show_wrong(predictions: Sequence[Prediction], report: Report) -> None:
    wrong = [prediction for prediction in predictions if prediction.exact_match is False]
    if wrong:
        shown: list[list[Scalar]] = [
            [p.row, end_of(p.prompt), start_of(p.reference), _answer(p)] for p in wrong[:WRONG_SHOWN]
        ]
        report.table(f"Wrong answers ({len(wrong)})", ["row", "prompt", "reference", "prediction"], shown)


def _answer(prediction: Prediction) -> str:
    return start_of(prediction.prediction) + (" (does not end)" if prediction.ended is False else "")
