"""A judge behind a real HTTP server, which counts what it is asked."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.tiny_model import Heard, workspace

from tunemill.stages.artifacts import Generations
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.answered import Answered, write_answered
from tunemill.stages.evaluation.judged import read_judged
from tunemill.stages.evaluation.judgements.config import JudgementsConfig
from tunemill.stages.evaluation.judgements.verdict import question_about, value_of
from tunemill.stages.evaluation.regular_expressions import last

pytest.importorskip("openai")
SECRET = "sk-of-the-test-123456"  # noqa: S105


@contextmanager
def judging(answer):
    """A server that answers `answer(question)`; its URL, and what it was asked."""
    asked, keys = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            keys.append(self.headers["Authorization"])
            asked.append(sent)
            said = answer(sent["messages"][0]["content"])
            body = json.dumps(
                {"id": "1", "object": "chat.completion", "created": 0, "model": sent["model"], "choices": [
                    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": said}}]}
                if said is not None else {"error": {"message": "no"}}
            ).encode()  # fmt: skip
            self.send_response(200 if said is not None else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked, keys
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def generations(folder, *texts):
    folder.mkdir(parents=True)
    rows = [
        Answered(
            row=row, id=str(row), prompt="?", reference="7", prediction=text, prompt_ids=[1], reference_ids=[2],
            answer_ids=[2], stops=True, finish_reason="stop",
        )
        for row, text in enumerate(texts)
    ]  # fmt: skip
    write_answered(rows, folder / "generations.jsonl")
    return Generations(folder)


def verdicts(folder, made, kept, **settings):
    from tunemill.stages.evaluation.judgements.body import judge

    out, heard = replace(workspace(folder), kept=kept), Heard()
    judge(JudgementsConfig(model="m", **settings), made, out, heard.report)
    return [one.value for one in read_judged(out.data / "judgements.jsonl")], heard.summary


def test_the_same_question_is_never_asked_twice(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    made = generations(tmp_path / "generations", "seven", "7", "seven")
    right = lambda question: f"Hm.\nVerdict: {'yes' if 'seven' in question else 'no'}"  # noqa: E731
    with judging(right) as (url, asked, keys):
        assert verdicts(tmp_path / "1", made, tmp_path / "kept", url=url)[0] == [True, False, True]
        assert len(asked) == 2, "two of the three are the same"
        assert set(keys) == {f"Bearer {SECRET}"}
        # Other rows, and another way to read the same answers.
        more = generations(tmp_path / "more", "7", "seventy")
        assert verdicts(tmp_path / "2", more, tmp_path / "kept", url=url)[0] == [False, True]
        assert len(asked) == 3
        numbers = {"yes": 1.0, "no": 0.25}
        assert verdicts(tmp_path / "3", made, tmp_path / "kept", url=url, values=numbers)[0] == [
            1.0,
            0.25,
            1.0,
        ]
        found, summary = verdicts(tmp_path / "4", made, tmp_path / "kept", url=url, verdict=r"\d")
        assert found == [None] * 3 and summary["without_verdict"] == 3
        assert len(asked) == 3
        # Another question is another question.
        verdicts(tmp_path / "5", made, tmp_path / "kept", url=url, prompt="{prediction}?")
        assert len(asked) == 5 and asked[-1]["messages"][0]["content"] in ("seven?", "7?")
    assert not any(SECRET in file.read_text() for file in tmp_path.rglob("*.json*"))


def test_what_was_answered_before_an_endpoint_failed_is_kept(tmp_path):
    made = generations(tmp_path / "generations", "1", "2", "3")
    broken = lambda question: None if "Answer:\n3" in question else "Verdict: yes"  # noqa: E731
    with judging(broken) as (url, asked, _):
        with pytest.raises(SettingError, match="gives no answer: BadRequestError"):
            verdicts(tmp_path / "1", made, tmp_path / "kept", url=url, at_once=1)
        before = len(asked)
        with pytest.raises(SettingError):
            verdicts(tmp_path / "2", made, tmp_path / "kept", url=url, at_once=1)
        assert len(asked) == before + 1


def test_a_page_that_is_no_reply_is_told(tmp_path):
    made = generations(tmp_path / "generations", "1")

    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(SettingError, match="the reply is none of a chat"):
            verdicts(tmp_path / "1", made, tmp_path / "kept", url=url)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_verdicts_are_read_where_the_pattern_finds_them_last():
    pattern = JudgementsConfig(url="http://h", model="m").verdict
    assert last(pattern, "Verdict: no\nOr rather\n**Verdict:** Yes") == "Yes"
    assert last(pattern, "yes") is None
    assert value_of("YES", {"yes": True}) is True
    assert value_of("4.5", {"yes": True}) == 4.5 and value_of("maybe", {"yes": True}) is None
    assert value_of("nan", {}) is None and value_of("-Infinity", {}) is None


def test_braces_in_texts_mean_nothing():
    row = Answered(0, "0", "{reference}", "r", "{prompt}", [], [], [], True, "stop")
    assert question_about("{prompt} {prediction} {other}", row) == "{reference} {prompt} {other}"
