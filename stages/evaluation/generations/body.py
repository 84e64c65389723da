"""Generate answers to held-out rows, and keep them with all that metrics may ask for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunemill.stages.artifacts import Adapter, EvaluationData, Generations, Model
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.answered import Answered, FinishReason, write_answered
from tunemill.stages.evaluation.answers_body import answer
from tunemill.stages.evaluation.batching_body import batching_for
from tunemill.stages.evaluation.comparison import reader_of, special_ids
from tunemill.stages.evaluation.excerpts import end_of, start_of
from tunemill.stages.evaluation.generations.config import GenerationsConfig
from tunemill.stages.evaluation.loading_body import end_ids_of, load_answering
from tunemill.stages.evaluation.questions import Question, question_of
from tunemill.stages.evaluation.row_ids import row_id
from tunemill.stages.models.own_code_body import use_code_of
from tunemill.stages.models.positions_body import check_positions, table_of_positions
from tunemill.stages.models.quiet_body import be_quiet
from tunemill.stages.models.words_body import load_words
from tunemill.stages.report import Report, Scalar, Workspace

SHOWN = 10


def generate(
    config: GenerationsConfig,
    model: Model,
    adapter: Adapter | None,
    evaluation_data: EvaluationData,
    out: Workspace,
    report: Report,
) -> None:
    """Write generations.jsonl. Raises UserError where no row has an answer to generate."""
    be_quiet()
    use_code_of(model.path)
    rows = Rows(evaluation_data.rows)
    numbers = range(min(len(rows), config.max_rows or len(rows)))
    words = load_words((adapter or model).path)

    def questions_for(end_ids: frozenset[int]) -> list[Question]:
        return _questions(rows, numbers, words, end_ids, report)

    if config.vllm is None:
        questions, answers = _by_transformers(config, model, adapter, questions_for, report)
    else:
        # Its client is an extra.
        from tunemill.stages.evaluation.generations.vllm_body import answer_by_vllm

        questions = questions_for(end_ids_of(model.path))
        answers = answer_by_vllm(config, model, adapter, questions, out, report)
    found = _answered(questions, answers, words)
    write_answered(found, Generations(out.data).rows)
    report.summary(
        rows=len(found),
        generated_tokens=sum(one.tokens for one in found),
        cut_off=sum(one.finish_reason == "length" for one in found),
    )
    shown: list[list[Scalar]] = [
        [one.row, end_of(one.prompt), start_of(one.prediction)] for one in found[:SHOWN]
    ]
    report.table("Answers", ["row", "prompt", "prediction"], shown)


def _by_transformers(
    config: GenerationsConfig,
    model: Model,
    adapter: Adapter | None,
    questions_for: Callable[[frozenset[int]], list[Question]],
    report: Report,
) -> tuple[list[Question], dict[int, list[int]]]:
    """The questions, and the ids of the answer to each row."""
    loaded, end_ids = load_answering(model, adapter)
    plain = loaded if adapter is None else loaded.get_base_model()
    questions = questions_for(end_ids)
    check_positions(plain, max(len(question.prompt) for question in questions), "evaluation data", report)
    answers = answer(
        loaded,
        questions,
        batching=batching_for(loaded, questions, config.rows_at_once, report),
        batch_size=config.rows_at_once,
        max_new_tokens=config.longest,
        positions=table_of_positions(plain),
        on_batch=lambda done: report.progress(done, len(questions), "rows"),
        sampling=config.sampling,
    )
    return questions, answers


def _questions(
    rows: Rows, numbers: Sequence[int], words: Any, end_ids: frozenset[int], report: Report
) -> list[Question]:
    ends = end_ids | ({words.eos_token_id} - {None})
    special = special_ids(words)
    found = [question_of(rows, row, frozenset(ends), special, bounded=False) for row in numbers]
    questions = [question for question in found if question is not None]
    if not questions:
        raise UserError(
            f"evaluation data: none of {len(numbers)} rows has a prompt before an answer. Look at roles_to_train and "
            f"type of the rows that are answered"
        )
    if len(questions) < len(numbers):
        report.log(f"{len(numbers) - len(questions)} rows have no prompt before an answer, and are not asked")
    return questions


def _answered(questions: Sequence[Question], answers: Mapping[int, list[int]], words: Any) -> list[Answered]:
    found, reader = [], reader_of(words)
    for question in questions:
        tokens = answers[question.row]
        asked = (question.prompt, question.reference)
        finished: FinishReason = "stop" if tokens and tokens[-1] in question.stops else "length"
        found.append(
            Answered(
                row=question.row,
                id=row_id(*(str(words.decode(ids, skip_special_tokens=True)) for ids in asked)),
                prompt=reader.text(question.prompt),
                reference=reader.text(question.without_end(question.reference)),
                prediction=reader.text(question.without_end(tokens)),
                prompt_ids=list(question.prompt),
                reference_ids=list(question.reference),
                answer_ids=tokens,
                stops=question.stopped,
                finish_reason=finished,
            )
        )
    return found
