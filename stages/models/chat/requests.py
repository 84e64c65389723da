"""What a client of OpenAI's protocol asks for: read, and refused where it cannot be honoured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from tunemill.stages.models.chat.sampling import Sampling

Kind = Literal["chat", "text"]
# Who asks, and what the server should do with it for them: nothing is kept here.
ABOUT_THE_CLIENT = {"user", "metadata", "store", "safety_identifier", "prompt_cache_key", "service_tier"}
# What is not there; a value that asks for nothing is taken.
NOTHING: Mapping[str, tuple[Any, ...]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "echo": (None, False),
    "suffix": (None, ""),
    "logprobs": (None, False),
    "top_logprobs": (None,),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "logit_bias": (None, {}),
    "tools": (None, []),
    "tool_choice": (None, "none", "auto"),
    "functions": (None, []),
    "function_call": (None, "none"),
    "parallel_tool_calls": (None, True, False),
    "response_format": (None, {"type": "text"}),
    "reasoning_effort": (None,),
    "modalities": (None, ["text"]),
}
READ = {"model", "stream", "stream_options", "stop", "max_tokens", "temperature", "top_p", "seed"}
ONLY = {"chat": {"messages", "max_completion_tokens"}, "text": {"prompt"}}


class RequestError(ValueError):
    """A request that cannot be honoured; `param` names the field."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status


@dataclass(frozen=True)
class Asked:
    """What to go on with, how, and whether in pieces, with a count of tokens behind them."""

    said: str | list[dict[str, str]]
    sampling: Sampling
    stream: bool
    counts: bool


def asked(body: Any, kind: Kind, model: str, usual: Sampling) -> Asked:
    """Read a request for a `model`; `usual` is what counts where it says nothing. Raises RequestError."""
    if not isinstance(body, dict):
        raise RequestError("the body is no JSON object")
    named = body.get("model", model)
    if named != model:
        raise RequestError(f"there is no model {named!r} here, only {model!r}", "model", 404)
    for name in body:
        if name not in READ | ONLY[kind] | ABOUT_THE_CLIENT and name not in NOTHING:
            raise RequestError(f"{name}: unknown here; take it out", name)
        if name in NOTHING and body[name] not in NOTHING[name]:
            raise RequestError(f"{name}: not supported; take it out", name)
    for name, kind_of_value, said in (
        ("stream", bool, "true or false"),
        ("stream_options", dict, "an object"),
    ):
        if not isinstance(body.get(name), kind_of_value | None):
            raise RequestError(f"{name}: {body[name]!r}: give {said}", name)
    return Asked(
        said=_messages(body.get("messages")) if kind == "chat" else _text(body.get("prompt")),
        sampling=_sampling(body, usual),
        stream=body.get("stream") is True,
        counts=(body.get("stream_options") or {}).get("include_usage") is True,
    )


def _sampling(body: Mapping[str, Any], usual: Sampling) -> Sampling:
    lengths = ("max_completion_tokens", "max_tokens")
    length_key = next((key for key in lengths if body.get(key) is not None), lengths[-1])
    length = _number(body, length_key, int, 1, 10**9)
    stop = body.get("stop")
    texts = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise RequestError("stop: give a text, or a list of texts", "stop")
    given = {
        "temperature": _number(body, "temperature", float, 0, 100),
        "top_p": _number(body, "top_p", float, 0, 1),
        "seed": _number(body, "seed", int, -(2**63), 2**63 - 1),
        "max_new_tokens": length,
    }
    if given["top_p"] == 0:
        # The likeliest token alone.
        given |= {"temperature": 0.0, "top_p": None}
    kept = {name: value for name, value in given.items() if value is not None}
    return replace(usual, **kept, stop=(*usual.stop, *texts))


def _number(body: Mapping[str, Any], key: str, kind: type, low: float, high: float) -> Any:
    value = body.get(key)
    if value is None:
        return None
    allowed = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise RequestError(f"{key}: {value!r}: give a number from {low} to {high}", key)
    return kind(value)


def _text(prompt: Any) -> str:
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str):
        return prompt
    raise RequestError("prompt: give one text", "prompt")


def _messages(messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages: give a list of messages", "messages")
    return [_message(message) for message in messages]


def _message(message: Any) -> dict[str, str]:
    if isinstance(message, dict) and isinstance(message.get("role"), str):
        content = message.get("content")
        if isinstance(content, list):
            texts = [
                part.get("text")
                for part in content
                if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)
            ]
            content = "".join(map(str, texts)) if len(texts) == len(content) else None
        if isinstance(content, str):
            return {"role": message["role"], "content": content}
    raise RequestError("messages: each has a role, and a content of text", "messages")
