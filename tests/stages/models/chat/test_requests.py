"""What clients ask for in OpenAI's protocol is honoured or refused."""

import pytest

from tunemill.stages.models.chat.requests import RequestError, asked
from tunemill.stages.models.chat.sampling import Sampling

USUAL = Sampling(temperature=0.5, max_new_tokens=7, stop=("END",))
MESSAGES = [{"role": "user", "content": "a"}]


def chat(**more):
    return asked({"model": "m", "messages": MESSAGES, **more}, "chat", "m", USUAL)


def test_what_a_request_says_counts_before_what_is_usual():
    assert chat().sampling == USUAL and chat().said == MESSAGES
    found = chat(temperature=0, top_p=0.5, seed=3, max_tokens=9, stop=["x", "y"]).sampling
    assert found == Sampling(0.0, 0.5, 9, 3, ("END", "x", "y"))
    assert chat(max_completion_tokens=5, max_tokens=9).sampling.max_new_tokens == 5
    assert chat(stop="x").sampling.stop == ("END", "x") and chat(top_p=0).sampling.temperature == 0
    assert chat(stream=True, stream_options={"include_usage": True}).counts and not chat(stream=True).counts
    assert asked({"prompt": ["a"]}, "text", "m", USUAL).said == "a"


def test_contents_in_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat(messages=[{"role": "user", "content": parts}]).said == [{"role": "user", "content": "ab"}]


@pytest.mark.parametrize(
    "more", [{"n": 1}, {"user": "me"}, {"tools": []}, {"logprobs": False}, {"seed": None}]
)
def test_what_asks_for_nothing_is_taken(more):
    assert chat(**more).sampling == USUAL


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{}]}, "tools"),
        ({"best_off": 1}, "best_off"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": [""]}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": [1]}, "stream_options"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"prompt": "a"}, "prompt"),
        ({"model": "other"}, "model"),
    ],
)
def test_what_cannot_be_honoured_is_refused(more, param):
    with pytest.raises(RequestError) as refused:
        chat(**more)
    assert refused.value.param == param and refused.value.status == (404 if param == "model" else 400)


@pytest.mark.parametrize("body", [None, [], "x"])
def test_a_body_that_is_none(body):
    with pytest.raises(RequestError):
        asked(body, "chat", "m", USUAL)
