"""Ask a judge about stored answers."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from tunemill.stages.artifacts import Generations, Judgements
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answered import read_answered
from tunemill.stages.evaluation.excerpts import end_of, start_of
from tunemill.stages.evaluation.judged import Judged, write_judged
from tunemill.stages.evaluation.judgements.config import JudgementsConfig
from tunemill.stages.evaluation.judgements.kept import Kept
from tunemill.stages.evaluation.judgements.verdict import question_about, value_of
from tunemill.stages.evaluation.regular_expressions import last
from tunemill.stages.models.endpoint_body import openai_client
from tunemill.stages.report import Report, Scalar, Workspace

SHOWN = 10


def judge(config: JudgementsConfig, generations: Generations, out: Workspace, report: Report) -> None:
    """Write judgements.jsonl. Raises SettingError where the endpoint gives no answer."""
    rows = list(read_answered(generations.rows))
    requests = [_request(config, question_about(config.prompt, row)) for row in rows]
    kept = Kept(out.kept or out.checkpoints)
    answers = _answers(config, requests, kept, report)
    found = []
    for row, answer in zip(rows, answers, strict=True):
        verdict = last(config.verdict, answer)
        found.append(Judged(row.row, row.id, answer, verdict, value_of(verdict, config.values)))
    write_judged(found, Judgements(out.data).rows)
    unread = [one for one in found if one.value is None]
    if unread:
        report.log(f"{len(unread)} of {len(found)} answers of the judge have no verdict that counts")
    report.summary(rows=len(found), without_verdict=len(unread))
    shown: list[list[Scalar]] = [
        [row.row, end_of(row.prompt), start_of(row.prediction), start_of(one.answer)]
        for row, one in zip(rows[:SHOWN], found, strict=False)
    ]
    report.table("Judged", ["row", "prompt", "prediction", "judge"], shown)


def _request(config: JudgementsConfig, question: str) -> dict[str, Any]:
    """All that decides an answer: what is sent, and to whom."""
    return {
        "url": config.url,
        "model": config.model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": config.max_tokens,
        "temperature": config.temperature,
    }


def _answers(
    config: JudgementsConfig, requests: Sequence[Mapping[str, Any]], kept: Kept, report: Report
) -> list[str]:
    """The answer to each request. Each different one is asked once, and kept as soon as it is answered."""
    texts = {str(request): request for request in requests}
    answers = {text: kept.find(request) for text, request in texts.items()}
    missing = [request for text, request in texts.items() if answers[text] is None]
    report.log(f"{len(texts) - len(missing)} of {len(texts)} questions were answered before")
    report.summary(asked=len(missing))
    for done, (request, answer) in enumerate(_asked(config, missing, kept), 1):
        answers[str(request)] = answer
        report.progress(done, len(missing), "questions")
    return [answers[str(request)] or "" for request in requests]


def _asked(
    config: JudgementsConfig, requests: Sequence[Mapping[str, Any]], kept: Kept
) -> Iterator[tuple[Mapping[str, Any], str]]:
    if not requests:
        return
    client = openai_client(config.url, timeout=config.timeout)

    def ask(request: Mapping[str, Any]) -> str:
        sent = {name: value for name, value in request.items() if name != "url"}
        try:
            answer = _text_of(client.chat.completions.create(**sent))
        except openai.OpenAIError as error:
            raise SettingError(
                f"judge: {config.url} gives no answer: {type(error).__name__}: {error}. What was answered so far is "
                f"kept; run again"
            ) from error
        kept.keep(request, answer)
        return answer

    with ThreadPoolExecutor(config.at_once) as pool:
        waiting = [pool.submit(ask, request) for request in requests]
        try:
            for request, future in zip(requests, waiting, strict=True):
                yield request, future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _text_of(reply: Any) -> str:
    """The text of a reply. Raises OpenAIError for one that the client takes and that is none, such as a web page."""
    choices = getattr(reply, "choices", None)
    if not choices or choices[0].message is None:
        raise openai.OpenAIError("the reply is none of a chat; does the URL end in /v1?")
    return choices[0].message.content or ""
