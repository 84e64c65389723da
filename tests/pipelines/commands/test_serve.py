"""`tunemill serve`, driven by the client that everybody has."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest

from tunemill.pipelines.cli import main
from tunemill.stages.models.chat.turns import WAITING, Turns

ASK = [{"role": "user", "content": "2 + 2"}]


@dataclass(frozen=True)
class Server:
    """A child process that serves, and a client of it."""

    client: object
    process: subprocess.Popen
    address: str
    complaints: Path

    def port(self):
        return int(self.address.rpartition(":")[2].partition("/")[0])

    def send(self, body: bytes, length: int):
        """A connection that has sent this much of a request, and reads nothing."""
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"
        connection = socket.create_connection(("127.0.0.1", self.port()))
        connection.sendall(head.encode() + body)
        return connection


@pytest.fixture(scope="module")
def server(finished_project, tmp_path_factory):
    openai = pytest.importorskip("openai")
    complaints = tmp_path_factory.mktemp("server") / "stderr"
    command = [
        sys.executable, "-m", "tunemill.pipelines.cli", "serve", str(finished_project.yaml), "--port", "0",
        "--state", str(finished_project.state), "--max-new-tokens", "24",
    ]  # fmt: skip
    with complaints.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=finished_project.folder
        )
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/v1", process.stdout.readline()).group()
        yield Server(
            openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=60),
            process,
            address,
            complaints,
        )
    finally:
        process.terminate()
        process.wait(10)


def ask(server, **more):
    return server.client.chat.completions.create(model="merged", messages=ASK, **more)


@pytest.mark.slow
def test_the_real_client_gets_answers(server, finished_project, capsys, tmp_path):
    """The same as `inference` gives; in pieces and whole; ended by texts, lengths and end tokens."""
    assert [model.id for model in server.client.models.list()] == ["merged"]
    whole = ask(server)
    (tmp_path / "p.jsonl").write_text(json.dumps({"messages": ASK}))
    call = ["inference", str(finished_project.yaml), "--state", str(finished_project.state)]
    assert main([*call, "--prompts", str(tmp_path / "p.jsonl"), "--max-new-tokens", "24"]) == 0
    expected = json.loads(capsys.readouterr().out)
    (choice,) = whole.choices
    assert choice.message.content == expected["answer"]
    assert choice.finish_reason == expected["finish_reason"]
    assert whole.usage.completion_tokens == expected["tokens"]

    events = list(ask(server, stream=True, stream_options={"include_usage": True}))
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text == expected["answer"] and len(events) > 5
    assert events[-2].choices[0].finish_reason == choice.finish_reason
    assert events[-1].usage == whole.usage

    stop = text[3:6]
    cut = ask(server, stop=stop).choices[0]
    assert cut.message.content == text[: text.index(stop)] and cut.finish_reason == "stop"
    short = ask(server, max_tokens=2)
    assert short.usage.completion_tokens == 2 and short.choices[0].finish_reason == "length"

    drawn = [ask(server, temperature=1.5, seed=seed).choices[0].message.content for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]

    prompt = "<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"
    completed = server.client.completions.create(model="merged", prompt=prompt)
    assert completed.choices[0].text == expected["answer"]
    pieces = server.client.completions.create(model="merged", prompt=prompt, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == expected["answer"]


@pytest.mark.slow
def test_who_comes_first_is_answered_first_and_too_many_are_told_to_come_back(server):
    """Past the bound a request is refused at once, and all others are heard."""
    import openai

    finished = []

    def one(number):
        ask(server, max_tokens=24)
        finished.append(number)

    with ThreadPoolExecutor(WAITING + 40) as pool:
        waiting = [pool.submit(one, number) for number in range(WAITING + 40)]
        done = [future.exception() for future in waiting]
    refused = [error for error in done if error is not None]
    assert refused and all(isinstance(error, openai.InternalServerError) for error in refused), refused
    assert {error.status_code for error in refused} == {503}
    assert all(int(error.response.headers["retry-after"]) >= 1 for error in refused)
    assert "come back later" in str(refused[0]) and len(finished) == WAITING + 40 - len(refused) > 0
    # A place is left by whoever hangs up, too.
    stream = ask(server, stream=True)
    stream.close()
    assert ask(server, max_tokens=2).usage.completion_tokens == 2


@pytest.mark.slow
def test_what_cannot_be_honoured_is_refused(server):
    import openai

    for more, said in (
        ({"n": 2}, "not supported"),
        ({"temperature": -1}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "not supported"),
        ({"extra_body": {"wishes": 3}}, "unknown"),
    ):
        with pytest.raises(openai.BadRequestError, match=said):
            ask(server, **more)
    with pytest.raises(openai.NotFoundError, match="only 'merged'"):
        server.client.chat.completions.create(model="gpt-5", messages=ASK)


@pytest.mark.slow
def test_whoever_hangs_up_holds_nobody_up(server):
    stream = ask(server, stream=True, max_tokens=100_000)
    next(iter(stream))
    stream.close()
    assert ask(server, max_tokens=2).usage.completion_tokens == 2
    endless = json.dumps({"messages": ASK, "max_tokens": 10**9}).encode()
    for sent in (endless, endless[:5]):
        connection = server.send(sent, len(endless))
        time.sleep(0.3)
        connection.close()
        assert ask(server, max_tokens=2, timeout=20).usage.completion_tokens == 2
    assert "Traceback" not in server.complaints.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", ["{", "[" * 100_000, '{"messages": [{"role": "user", "content": "\\ud800"}]}']
)
def test_what_is_no_request_is_refused(body, server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port(), timeout=20)
    connection.request("POST", "/v1/chat/completions", body)
    assert connection.getresponse().status == 400
    assert "Traceback" not in server.complaints.read_text()


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(finished_project, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        state = ["--state", str(finished_project.state)]
        assert main(["serve", str(finished_project.yaml), "--port", port, *state]) == 1
    said = capsys.readouterr().err
    assert "in use" in said and "--port" in said and "loading" not in said


@pytest.mark.slow
def test_ctrl_c_waits_for_no_answer(server):
    """The last of this file: it ends the server."""
    endless = json.dumps({"messages": ASK, "max_tokens": 10**9}).encode()
    with server.send(endless, len(endless)):
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.complaints.read_text()


def test_turns_come_in_order_and_their_number_is_bounded():
    turns, heard = Turns(waiting=2), []
    first, second, third = (turns.take() for _ in range(3))
    assert turns.take() is None
    first.wait()

    def follow(turn, name):
        turn.wait()
        heard.append(name)
        turn.leave()

    threads = [Thread(target=follow, args=pair) for pair in ((third, "third"), (second, "second"))]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert heard == []
    first.leave()
    first.leave()
    for thread in threads:
        thread.join(5)
    assert heard == ["second", "third"] and turns.seconds >= 1
    # Whoever leaves before it was heard makes room.
    kept, gone = turns.take(), turns.take()
    gone.leave()
    last = turns.take()
    kept.leave()
    last.wait()
    last.leave()
