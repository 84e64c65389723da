"""What lets one in is found by its shape and by its value; the rest of a URL stays, and makes its identity."""

import base64
import json
import sys
from pathlib import Path

import pytest
from support import bodies

from tunemill.resources.errors import LaunchError
from tunemill.resources.launcher import in_child, in_this_process
from tunemill.resources.lines import Lines
from tunemill.resources.protocols import is_secret_name, without_credentials
from tunemill.resources.redaction import hidden_in_errors, redacted, redacted_document, secrets_in

TESTS = Path(bodies.__file__).parent.parent
WORD = "pa55-w0rd"


def call(workspace, what):
    return bodies.call_of(bodies.misbehave, workspace, what)


@pytest.mark.parametrize(
    ("given", "shown", "identity"),
    [
        ("https://user:pa55-w0rd@host/a?b=1", "https://***@host/a?b=1", "https://host/a?b=1"),
        ("HTTPS://pa55-w0rd@host/a", "HTTPS://***@host/a", "HTTPS://host/a"),
        ("https://user:pa55-w0rd/x@host/a", "https://***@host/a", "https://host/a"),
        ("https://user:pa55-w0rd@x@host/a", "https://***@host/a", "https://host/a"),
        ("https:/user:pa55-w0rd@host/a", "https:/***@host/a", "https:/host/a"),
        ("s3://id:pa55-w0rd@bucket/a", "s3://***@bucket/a", "s3://bucket/a"),
        ("cache::https://user:pa55-w0rd@host/a", "cache::https://***@host/a", "cache::https://host/a"),
        ("abfs://data@account.net/a", "abfs://data@account.net/a", "abfs://data@account.net/a"),
        ("https://host:80/a@b", "https://host:80/a@b", "https://host:80/a@b"),
        ("https://[::1]:80/a@b", "https://[::1]:80/a@b", "https://[::1]:80/a@b"),
        ("hf://datasets/a/b@main", "hf://datasets/a/b@main", "hf://datasets/a/b@main"),
        ("https://h/a?id=1&token=pa55-w0rd", "https://h/a?id=1&token=***", "https://h/a?id=1"),
        ("https://h/a?token=pa55-w0rd&id=1#x", "https://h/a?token=***&id=1#x", "https://h/a?id=1#x"),
        ("https://h/a?id=1;api_key=pa55-w0rd", "https://h/a?id=1;api_key=***", "https://h/a?id=1"),
        ("https://h/a?%74oken=pa55-w0rd", "https://h/a?%74oken=***", "https://h/a"),
        ("https://h/a#access_token=pa55-w0rd", "https://h/a#access_token=***", "https://h/a"),
        ("https://h/a?X-Amz-Date=1&X-Amz-Signature=pa55-w0rd", "https://h/a?X-Amz-Date=1&X-Amz-Signature=***", "https://h/a"),
        ("https://h/a?AWSAccessKeyId=pa55-w0rd&Expires=17", "https://h/a?AWSAccessKeyId=***&Expires=17", "https://h/a"),
        ("https://h/a?sv=2024&se=1&id=2&sig=pa55-w0rd", "https://h/a?sv=2024&se=1&id=2&sig=***", "https://h/a?id=2"),
        ("https://h/a?sp=1&author=me&tokenizer=x", "https://h/a?sp=1&author=me&tokenizer=x", "https://h/a?sp=1&author=me&tokenizer=x"),
    ],
)  # fmt: skip
def test_urls(given, shown, identity):
    assert redacted(given) == shown and WORD not in shown
    assert without_credentials(given) == identity
    # Twice is once, and in the middle of a sentence it is the same.
    assert redacted(shown) == shown
    assert redacted(f"cannot read '{given}', try again") == f"cannot read '{shown}', try again"


def test_what_libraries_say():
    for text in (
        "Max retries exceeded with url: /rows?token=pa55-w0rd (Caused by X)",
        "{'Authorization': 'Bearer pa55-w0rd'}",
        "authorization: Basic pa55-w0rd",
        "AccountName=me;AccountKey=pa55-w0rd;x",
    ):
        assert WORD not in redacted(text) and "***" in redacted(text)
    assert redacted("given: 'hf_abcdefghijklmnopqrstuvwxyz'") == "given: '***'"
    for harmless in ("hf_use_auth_token: true", "a = b; c = d", "mail a@b.c", "a?b=c", "basic information"):
        assert redacted(harmless) == harmless


def test_values_are_found_wherever_they_are_said():
    environment = {
        "HF_TOKEN": "hub-token-value", "AWS_SECRET_ACCESS_KEY": "aws/secret+key", "HTTPS_PROXY": "http://me:proxypass@p:1",
        "FSSPEC_HTTPS": json.dumps({"headers": {"Authorization": "Bearer fsspec-bearer"}, "block_size": "1000000"}),
        "HF_TOKEN_PATH": "/home/me/token", "TOKENIZERS_PARALLELISM": "perhaps", "MY_TOKEN": "short", "HOME": "/home/me",
        "PWD": "/home/me", "OLDPWD": "/home/me",
    }  # fmt: skip
    config = {"path": ["https://user:p%40ss%2Fword@host/a?token=url-token-value"], "n": 3,
              "trackers": [{"comet_api_key": "comet-key-value"}], "pad_token": "<|padding|>"}  # fmt: skip
    secrets = secrets_in(config, environment)
    basic = base64.b64encode(b"user:p@ss/word").decode()
    said = (
        "hub-token-value aws/secret+key aws%2Fsecret%2Bkey proxypass fsspec-bearer p@ss/word p%40ss%2Fword "
        f"url-token-value comet-key-value {basic}"
    )
    assert set(redacted(said, secrets).split()) == {"***"}
    kept = "/home/me/token perhaps short 1000000 user host <|padding|>"
    assert redacted(kept, secrets) == kept
    assert redacted_document({"a": [said.split()[0], 1, None]}, secrets) == {"a": ["***", 1, None]}


def test_names():
    for name in (
        "token",
        "access_token",
        "apiKey",
        "X-Api-Key",
        "OSSAccessKeyId",
        "PASSWORD",
        "client_secret",
        "sig",
        "jwt",
    ):
        assert is_secret_name(name), name
    for name in ("tokenizer", "author", "monkey", "keyboard", "design", "passage", "page", "id"):
        assert not is_secret_name(name), name


@pytest.mark.parametrize("launch", [in_this_process, in_child])
@pytest.mark.parametrize("kind", ["user error", "mistake"])
def test_nothing_that_a_stage_says_or_leaves_tells_it(tmp_path, monkeypatch, launch, kind):
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    monkeypatch.setenv("HF_TOKEN", "hub-token-value")
    workspace = {name: tmp_path / name for name in ("data", "checkpoints", "logs")}
    for folder in workspace.values():
        folder.mkdir()
    text = f"{kind} https://user:{WORD}@host/a?token=url-token with hub-token-value"
    events = []
    expected = KeyError if (launch, kind) == (in_this_process, "mistake") else LaunchError
    with pytest.raises(expected) as caught:
        launch(call(workspace, text), events.append)
    # What a child prints is told line by line, too.
    said = [event["type"] for event in events if event["type"] != "output"]
    assert said == ["log", "summary", "table"] and (len(said) < len(events)) is (launch is in_child)
    left = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    told = json.dumps(events) + left.decode()
    told += "" if expected is KeyError else str(caught.value)
    for secret in (WORD, "url-token", "hub-token-value"):
        assert secret not in told
    assert "https://***@host/a?token=*** with ***" in told
    if launch is in_child:
        assert f"{kind} https://***@host" in (workspace["logs"] / "output.log").read_text()
        assert caught.value.__cause__ is None


def test_a_child_that_is_gone_before_it_is_told_its_call(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for name in ("data", "logs"):
        (tmp_path / name).mkdir()
    workspace = {name: tmp_path / name for name in ("data", "checkpoints", "logs")}
    long = call(workspace, "x" * 1_000_000)
    with pytest.raises(LaunchError, match="exit code 1"):
        in_child(long, print)


def test_lines_that_come_in_pieces():
    found = []
    lines = Lines(found.append, keep_ends=True)
    for piece in (b"a", b"b\n", b"50%\r", b"caf\xc3", b"\xa9\n\n", b"end"):
        lines.add(piece)
    lines.finish()
    assert found == ["ab\n", "50%\r", "café\n", "\n", "end"]


def test_an_error_that_nobody_expected():
    with (
        pytest.raises(RuntimeError, match=r"KeyError: 'https://\*\*\*@host'") as caught,
        hidden_in_errors(()),
    ):
        try:
            raise ValueError(WORD)
        except ValueError as error:
            raise KeyError(f"https://user:{WORD}@host") from error
    assert caught.value.__suppress_context__
    for error in (KeyError("harmless"), StopAsyncIteration()):
        with pytest.raises(type(error)), hidden_in_errors(()):
            raise error
    with pytest.raises(LookupError), hidden_in_errors((), LookupError):
        raise KeyError(f"https://user:{WORD}@host")
