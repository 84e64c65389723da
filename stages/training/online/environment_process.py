"""The process that environments come from: it loads a user's code once, and forks a child for each completion.

    python -m tunemill.stages.training.online.environment_process FD

Over the connection FD comes `Called` first. Then each None, with a descriptor behind it, asks for a child that answers
over that descriptor, and is answered by its number; a number asks for the end of that child. What a completion does in
its environment, also to what a module holds, is seen by no other. When the connection ends all children do, whatever
they are doing then: a method that hangs must not outlive a run.
"""

import asyncio
import inspect
import math
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from tunemill.stages.data.conversations.user_modules import UserFailures
from tunemill.stages.errors import UserError
from tunemill.stages.training.online.environment_calls import (
    Begin,
    Called,
    Describe,
    Described,
    Finish,
    Finished,
    Told,
    Use,
    Used,
)
from tunemill.stages.training.online.environment_source import RESET, REWARD
from tunemill.stages.training.online.environment_state import kept
from tunemill.stages.training.online.reward_calls import Loaded
from tunemill.stages.training.online.reward_process import loaded, seed_random
from tunemill.stages.training.online.served import Served, ServedEnvironment, is_served, served_at

# The largest number that a server takes as a seed, whatever it keeps it in.
MOST_OF_SEEDS = 2**31 - 1


@dataclass
class Home:
    """What one completion may call."""

    called: Called
    make: Callable[[], Any] | None
    functions: Sequence[Callable[..., Any]]
    served: Served | None = None
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    environment: Any = None

    def run(self, what: str, function: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        """What a function gives; one that is `async` is waited for. Raises UserError, with the line that raised."""
        with UserFailures(f"{self.called.key}: {what}", self.called.files, UserError):
            value = function(*given, **named)
            return self.runner.run(_waited(value)) if inspect.isawaitable(value) else value

    def made(self) -> None:
        """A new environment."""
        if self.make is None:
            return
        name = str(self.called.factory)
        self.environment = self.run(name, self.make)
        if not callable(getattr(self.environment, RESET, None)):
            raise UserError(
                f"{self.called.key}: {name} makes {type(self.environment).__name__}, which has no method {RESET}"
            )

    def tools(self) -> dict[str, Callable[..., Any]]:
        """What may be called, by name: the functions, and of an environment what is no part of its own keeping."""
        found = {getattr(one, "__name__", str(one)): one for one in self.functions}
        own = self.own_tools()
        if twice := next((name for name in own if name in found), None):
            raise UserError(
                f"{self.called.key}: {twice} is a method of {self.called.factory} and one of trl.tools, and a model "
                f"calls a tool by its name. Rename one"
            )
        return found | own

    def own_tools(self) -> dict[str, Callable[..., Any]]:
        """What may be called of the environment."""
        if self.served is not None:
            names = [str(one["function"]["name"]) for one in self.served.tools]
            return {name: partial(self.acted, name) for name in names}
        # Of the class, as looking at an object would ask for its properties.
        names = [name for name, _ in inspect.getmembers(type(self.environment), inspect.isfunction)]
        if self.environment is None:
            return {}
        return {
            name: getattr(self.environment, name)
            for name in names
            if name not in (RESET, REWARD) and not name.startswith("_")
        }

    def acted(self, tool: str, /, **arguments: Any) -> Any:
        """What an action of an environment behind an address gives."""
        return self.environment.act(tool, arguments)

    def answer(self, asked: Any) -> Any:
        """The answer to what was asked. Raises UserError."""
        if isinstance(asked, Describe):
            return self.described()
        if isinstance(asked, Begin):
            return self.begun(asked)
        if isinstance(asked, Use):
            return [self.used(call) for call in asked.calls]
        assert isinstance(asked, Finish)
        return self.finished()

    def described(self) -> Described:
        """The tools by their docstrings and types."""
        self.made()
        tools = self.tools()
        if not tools:
            raise UserError(
                f"{self.called.key}: {self.called.factory} has no method that a completion could call"
            )
        by_server = {str(one["function"]["name"]): one for one in self.served.tools} if self.served else {}
        return Described(
            [by_server.get(name) or self.schema_of(name, one) for name, one in tools.items()],
            callable(getattr(self.environment, REWARD, None)),
        )

    def schema_of(self, name: str, tool: Callable[..., Any]) -> dict[str, Any]:
        """What a function or method says of itself."""
        # Slow to import, and needed here alone.
        from transformers.utils import get_json_schema

        found: dict[str, Any] = self.run(f"{name}: what it says of itself", get_json_schema, tool)
        return found

    def begun(self, asked: Begin) -> str | None:
        """What is said behind the prompt; None: nothing."""
        seed_random(asked.seed)
        self.made()
        if self.environment is None:
            return None
        reset = getattr(self.environment, RESET)
        row = self.given_to(asked)
        taken = inspect.signature(reset).parameters.values()
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
            row = {one.name: row[one.name] for one in taken if one.name in row}
        said = self.run(f"{self.called.factory}.{RESET}", reset, **row)
        if said is None:
            return None
        text = _text_of(said)
        if text is None:
            raise UserError(
                f"{self.called.key}: {self.called.factory}.{RESET} gave {said!r:.80}, and must give a text or None"
            )
        return text

    def given_to(self, asked: Begin) -> dict[str, Any]:
        """What `reset` is given: the row, and for a server a seed that the completions of a prompt have in common."""
        if self.served is None:
            return dict(asked.row)
        columns: Mapping[str, Any] = {name: one for name, one in asked.row.items() if name != "prompt"}
        return {"seed": asked.episode % MOST_OF_SEEDS, **columns}

    def used(self, call: Any) -> Used:
        """What a call gives. What it raises is told to the model."""
        kind = call.get("type", "function") if isinstance(call, dict) else None
        asked = call.get("function") if isinstance(call, dict) else None
        name = str((asked or {}).get("name", "unknown")) if isinstance(asked, dict | None) else "unknown"
        if kind != "function" or not isinstance(asked, dict):
            return _error(name, f"Unsupported tool call type: {kind}", f"a call of the type {kind}")
        tool = self.tools().get(name)
        if tool is None:
            return _error(name, f"Tool {name} not found.", f"there is no tool {name}")
        arguments = asked.get("arguments") or {}
        try:
            given = self.run(name, tool, **arguments) if isinstance(arguments, dict) else self._no_names(name)
        except UserError as error:
            raised = error.__cause__
            return _error(name, str(error) if raised is None else str(raised), str(error))
        text = _text_of(given)
        return Used(name, str(given) if text is None else text)

    def _no_names(self, name: str) -> Any:
        raise UserError(f"{self.called.key}: {name}: arguments must have names")

    def finished(self) -> Finished:
        """What is left of the environment."""
        if self.environment is None:
            return Finished(None, None)
        state, left_out = kept(self.environment)
        ask = getattr(self.environment, REWARD, None)
        if not callable(ask):
            return Finished(state, None, left_out)
        name = f"{self.called.factory}.{REWARD}"
        value = self.run(name, ask)
        with UserFailures(f"{self.called.key}: {name} gave {value!r:.80}:", self.called.files, UserError):
            value = None if value is None else float(value)
        if value is not None and not math.isfinite(value):
            raise UserError(f"{self.called.key}: {name} gave {value}. A reward is a finite number, or None")
        return Finished(state, value, left_out)


async def _waited(value: Any) -> Any:
    return await value


def _error(name: str, words: str, failure: str) -> Used:
    """As TRL tells a model of it."""
    return Used(name, str({"error": words}), failure)


def _text_of(said: Any) -> str | None:
    """A text, or parts that are all texts, as one; None of something else."""
    if isinstance(said, str):
        # Not a class of one's own, such as an Enum, which whoever asked could not read.
        return str.__str__(said)
    is_parts = isinstance(said, list) and said and all(isinstance(one, dict) for one in said)
    if not is_parts or any(one.get("type") != "text" for one in said):
        return None
    return "".join(str(one.get("text", "")) for one in said)


def serve(home: Home, connection: Connection) -> None:
    """Answer until the connection ends."""
    with suppress(EOFError, OSError):
        while True:
            asked = connection.recv()
            try:
                told = Told(home.answer(asked))
            except UserError as error:
                told = Told(failure=str(error))
            connection.send(told)


@dataclass
class Children:
    """The children of this process."""

    control: Connection
    alive: set[int] = field(default_factory=set)

    def fork(self, home: Home) -> None:
        """A child that answers over the descriptor which comes next; its number is told."""
        descriptor = recv_handle(self.control)
        number = os.fork()
        if number == 0:
            try:
                os.setpgid(0, 0)
                self.control.close()
                serve(home, Connection(descriptor))
            finally:
                # Nothing of what the parent began is ended here.
                os._exit(0)
        with suppress(ProcessLookupError, PermissionError):
            os.setpgid(number, number)
        os.close(descriptor)
        self.alive.add(number)
        self.control.send(number)

    def end(self, number: int) -> None:
        """End a child with all that it has started. It is waited for, so its number is no other process's before."""
        self.alive.discard(number)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(number, signal.SIGKILL)
        os.waitpid(number, 0)


def main(descriptor: int) -> None:
    """Fork until the connection ends."""
    control = Connection(descriptor)
    # What environments print is no part of any answer.
    sys.stdout = sys.stderr
    called: Called = control.recv()
    address = called.factory if is_served(called.factory) else None
    is_class = called.factory is not None and address is None
    names = [*([str(called.factory)] if is_class else []), *called.tools]
    # Held as long as the process lives: what is not held ends.
    local = ExitStack()
    try:
        found = loaded(Loaded(names, called.files), local, called.key)
        # Before there are children, which all know it then.
        served = None if address is None else served_at(address, called.key)
    except UserError as error:
        control.send(Told(failure=str(error)))
        return
    control.send(Told())
    if served is not None:
        home = Home(called, partial(ServedEnvironment, served, called.counts, called.key), found, served)
    else:
        home = Home(called, found[0] if is_class else None, found[1:] if is_class else found)
    random.seed(0)
    children = Children(control)
    try:
        while True:
            number = control.recv()
            if number is None:
                children.fork(home)
            else:
                children.end(number)
    except (EOFError, OSError):
        for number in tuple(children.alive):
            children.end(number)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
