"""Environments behind the address of a server of OpenEnv: an action there is a tool, and what it earns is the reward.

OpenEnv's own client speaks to it. Each completion has a session of its own on the server.
"""

import functools
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tunemill.stages.errors import UserError

# The distribution, and what an environment of it is called in figures.
PACKAGE = NAME = "openenv"
SCHEMES = ("http", "https", "ws", "wss")
# How long a session is waited for that the server has no room for: those of completions that have ended are closed
# when it notices.
ROOM_SECONDS, PAUSE_SECONDS, ANSWER_SECONDS = 10.0, 0.2, 30.0
# What the server says of an action that it does not take, or that raises there. All else is no fault of the model.
MISFIT = "VALIDATION_ERROR"
OF_ACTIONS = frozenset({MISFIT, "EXECUTION_ERROR", "INVALID_JSON"})
NO_ROOM = "CAPACITY_REACHED"
CODE = re.compile(r"^Server error: (?P<words>.*) \(code: (?P<code>\w+)\)$", re.DOTALL)
# Fields of every action and observation that are none of their own.
BESIDE = frozenset({"metadata"})


class RefusedActionError(ValueError):
    """What the server says of an action that it does not take: an error to the model."""


@dataclass(frozen=True)
class Served:
    """What can be done at an address. `by_name`: its tools are called by their names; else one tool is its action."""

    url: str
    tools: Sequence[dict[str, Any]]
    by_name: bool


def is_served(name: str | None) -> bool:
    """Whether an environment is named by an address."""
    return name is not None and name.partition("://")[0].lower() in SCHEMES and "://" in name


def fault_of_address(name: str) -> str | None:
    """Why an address names no server; None where it may."""
    try:
        parts = urlsplit(name)
        named, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{name} is no address: {error}"
    if parts.username is not None:
        return "it holds a name or a password, and a YAML is kept with what it makes. Take it out"
    if not named or parts.query or parts.fragment:
        return f"{name} must be the address of a server, as http://localhost:8000"
    return None


def served_at(url: str, key: str) -> Served:
    """What the server there can do. Raises UserError where there is none, or none of OpenEnv."""
    import httpx

    # Slow to import, and here children have it that are forked later.
    _client_class()
    base = url.rstrip("/")
    base = f"http{base[2:]}" if base.lower().startswith("ws") else base
    try:
        schema = httpx.get(f"{base}/schema", timeout=ANSWER_SECONDS).raise_for_status().json()["action"]
        about = httpx.get(f"{base}/metadata", timeout=ANSWER_SECONDS)
        said = about.json().get("description") if about.is_success else None
        fields = {name: one for name, one in schema.get("properties", {}).items() if name not in BESIDE}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(
            f"{key}: {url}: no server of OpenEnv answers there ({type(error).__name__}: {error}). Start it before the "
            f"run, and see that {base}/schema says what its actions are"
        ) from None
    by_name = (
        not fields or fields.keys() >= {"tool_name", "arguments"} or schema.get("title") == "ListToolsAction"
    )
    tools = _named_tools(url, key) if by_name else [_action(schema, fields, said)]
    if not tools:
        raise UserError(f"{key}: {url}: the environment there has no tool, and nothing could be called")
    return Served(url, tools, by_name)


def _named_tools(url: str, key: str) -> list[dict[str, Any]]:
    environment = ServedEnvironment(Served(url, [], True), "sum", key)
    try:
        listed = environment.asked({"type": "list_tools"}).observation.get("tools", [])
    finally:
        environment.close()
    return [
        _tool(one["name"], one.get("description"), one.get("input_schema") or one.get("inputSchema") or {})
        for one in listed
    ]


def _action(schema: Mapping[str, Any], fields: Mapping[str, Any], said: str | None) -> dict[str, Any]:
    """The tool that is an action with these fields: `GuessAction` is `guess`."""
    title = re.sub(r"Action$", "", str(schema.get("title", ""))) or "act"
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", title).lower()
    wanted = [one for one in schema.get("required", []) if one in fields]
    parameters = {"type": "object", "properties": dict(fields), "required": wanted}
    if "$defs" in schema:
        parameters["$defs"] = schema["$defs"]
    return _tool(re.sub(r"\W+", "_", name), schema.get("description") or said, parameters)


def _tool(name: str, description: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    described = {"name": name, "description": description or name, "parameters": dict(parameters)}
    return {"type": "function", "function": described}


class ServedEnvironment:
    """What one completion does at the server, and what it has earned there. Rewards get it as `environments`."""

    def __init__(self, served: Served, counts: str, key: str) -> None:
        self.url, self.counts = served.url, counts
        self.rewards: list[float | None] = []
        self.observation: Mapping[str, Any] = {}
        self.done = False
        self.lost: str | None = None
        self._served, self._key = served, key
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """All but the connection."""
        return {**vars(self), "_client": None}

    def reset(self, **row: Any) -> str | None:
        """Begin an episode, which is told what stands in the row; what the server says first."""
        until = time.monotonic() + ROOM_SECONDS
        while True:
            self._client = _client(self.url)
            try:
                found = self._client.reset(**row)
                break
            except _failures() as error:
                words, code = _words(error)
                self.close()
                if code != NO_ROOM:
                    raise UserError(f"{self._key}: {self.url}: resetting failed: {words}") from None
                if time.monotonic() > until:
                    raise UserError(
                        f"{self._key}: {self.url}: {words} Each completion has a session of its own: start the server "
                        f"with max_concurrent_envs of at least pipeline.completions_at_once, or lower that"
                    ) from None
            time.sleep(PAUSE_SECONDS)
        self.observation, self.done = found.observation, bool(found.done)
        return _text(found.observation) or None

    def act(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What an action gives. Raises what the model is told of one that cannot be taken."""
        if self.lost is not None:
            raise UserError(self.lost)
        if self.done:
            raise RefusedActionError("the episode has ended")
        action = {"type": "call_tool", "tool_name": name, "arguments": dict(arguments)}
        found = self.asked(action if self._served.by_name else dict(arguments))
        self.rewards.append(None if found.reward is None else float(found.reward))
        self.observation, self.done = found.observation, bool(found.done)
        if error := self._served.by_name and found.observation.get("error"):
            raise RefusedActionError(str(error.get("message", error) if isinstance(error, dict) else error))
        return _text(_result(found.observation) if self._served.by_name else found.observation)

    def asked(self, action: Mapping[str, Any]) -> Any:
        """The server's answer to an action. One that gives none has lost the episode."""
        try:
            self._client = self._client or _client(self.url)
            return self._client.step(dict(action))
        except _failures() as error:
            words, code = _words(error)
            if code in OF_ACTIONS:
                raise RefusedActionError(words + self._takes(code)) from None
            self.lost = f"{self._key}: {self.url}: the episode was lost: {words}"
            raise UserError(self.lost) from None

    def _takes(self, code: str | None) -> str:
        """What an action must have, which the server does not say of one that has something else."""
        if code != MISFIT or self._served.by_name or not self._served.tools:
            return ""
        fields = self._served.tools[0]["function"]["parameters"]["properties"]
        return ": it takes " + ", ".join(
            f"{name} ({one['type']})" if "type" in one else name for name, one in fields.items()
        )

    @property
    def reward(self) -> float | None:
        """What it has earned: the sum of what its actions have given, or the last of it; None where they give none."""
        given = [one for one in self.rewards if one is not None]
        if not given:
            return None if self.rewards else 0.0
        return sum(given) if self.counts == "sum" else given[-1]

    def get_reward(self) -> float | None:
        """The same. Raises UserError of an episode that was lost: nobody knows what it would have earned."""
        if self.lost is not None:
            raise UserError(self.lost)
        return self.reward

    def close(self) -> None:
        """End the session."""
        if self._client is not None:
            self._client.close()
            self._client = None


def _client(url: str) -> Any:
    # How long an answer may take is said by pipeline.reward_timeout.
    return _client_class()(base_url=url, mode="simulation", message_timeout_s=None).sync()


@functools.cache
def _client_class() -> Any:
    from openenv.core.generic_client import GenericEnvClient

    class OneSession(GenericEnvClient):  # type: ignore[misc]
        """Of a session that is lost nothing is asked in a new one, which knows nothing of the episode."""

        first: Any = None

        async def _connect_async(self) -> Any:
            await super()._connect_async()
            self.first = self._ws if self.first is None else self.first
            if self._ws is not self.first:
                raise ConnectionError("the connection was closed")
            return self

    return OneSession


def _failures() -> tuple[type[Exception], ...]:
    """What the client raises where the server refuses, or does not answer as one of OpenEnv."""
    from websockets.exceptions import WebSocketException

    return (OSError, RuntimeError, ValueError, TimeoutError, WebSocketException)


def _words(error: Exception) -> tuple[str, str | None]:
    """What went wrong, and the code by which a server calls it."""
    found = CODE.match(str(error))
    if found is None:
        return f"{type(error).__name__}: {error}", None
    return found["words"], found["code"]


def _result(observation: Mapping[str, Any]) -> Any:
    """What a tool that was called by its name gives."""
    result = observation.get("result", observation)
    return result["data"] if isinstance(result, dict) and "data" in result else result


def _text(given: Any) -> str:
    """As the model is told it: a text as it stands, also where it is the only field; all else as JSON."""
    if isinstance(given, dict):
        fields = {name: one for name, one in given.items() if name not in BESIDE}
        if len(fields) == 1 and isinstance(only := next(iter(fields.values())), str):
            return only
        given = fields
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) if given else ""
