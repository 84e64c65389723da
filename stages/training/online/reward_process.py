"""The process that runs reward functions: one call at a time, in its main thread, where alarms work.

    python -m tunemill.stages.training.online.reward_process FD

Over the connection FD come first the functions (`Loaded`), then one `Call` after another; each is answered by a
`Reply`. It ends when the connection does, whatever it is doing then: a function that hangs must not outlive a run.
"""

import asyncio
import importlib
import inspect
import math
import os
import queue
import random
import sys
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from tunemill.stages.data.conversations.user_modules import (
    UserFailures,
    local_modules,
    module_and_function,
    module_names,
)
from tunemill.stages.errors import UserError
from tunemill.stages.own_classes import file_of
from tunemill.stages.training.online.environment_state import all_restored
from tunemill.stages.training.online.reward_calls import KEY, Call, Loaded, Reply, not_finite
from tunemill.stages.training.online.taskset_scores import installed_class, is_class_of_tasks, scores_of
from tunemill.stages.training.online.tasksets import is_taskset

# What Python goes through as well, and what is not one number after another.
NO_LISTS = (str, bytes, Mapping, Set)


def loaded(functions: Loaded, local: ExitStack, key: str = KEY) -> list[Callable[..., Any]]:
    """The functions; those of a file share what it holds, as it is imported once. Raises UserError.

    Until `local` ends they find their local modules, also where they import them as they are called.
    """
    modules: dict[str, ModuleType] = {}
    entered: list[dict[str, Path]] = []
    found = []
    for name in functions.names:
        if is_taskset(name):
            with UserFailures(f"{key}: {name}", functions.files, UserError):
                found.append(scores_of(installed_class(name), name))
            continue
        own = str(file_of(name, functions.files))
        ordered = [own, *(one for one in functions.files if one != own)]
        module, function = module_and_function(name, ordered[0])
        if own not in modules:
            names = module_names(module, ordered)
            # What one file has imported another one finds, and is not given a second time.
            if names not in entered:
                local.enter_context(local_modules(module, ordered))
                entered.append(names)
            with UserFailures(f"{key}: {name}", ordered, UserError):
                modules[own] = importlib.import_module(module)
        one = getattr(modules[own], function, None)
        if not callable(one):
            raise UserError(f"{key}: {name}: {own} has no function {function}")
        if is_class_of_tasks(one):
            with UserFailures(f"{key}: {name}", ordered, UserError):
                one = scores_of(one, name)
        found.append(one)
    return found


def answer(function: Callable[..., Any], name: str, files: Sequence[str], call: Call) -> Reply:
    """What a function says, each value a number or None."""
    metrics: dict[str, list[float]] = {}
    extra: dict[str, list[Any]] = {}
    seed_random(call.seed)
    given = {
        **call.arguments,
        "trainer_state": SimpleNamespace(global_step=call.step),
        "log_metric": lambda name, value: metrics.setdefault(name, []).append(float(value)),
        "log_extra": lambda column, values: extra.update({column: list(map(_plain, values))}),
    }
    if call.environments is not None:
        given["environments"] = []
    try:
        with UserFailures(f"{KEY}: {name}", files, UserError):
            taken = inspect.signature(function).parameters.values()
            if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken):
                given = {one.name: given[one.name] for one in taken if one.name in given}
            if "environments" in given:
                given["environments"] = all_restored(call.environments or [])
            told = function(**given)
            values = _numbers_in(asyncio.run(told) if inspect.iscoroutine(told) else told, name)
    except UserError as error:
        return Reply(failure=str(error))
    wanted = len(call.rows)
    if len(values) != wanted:
        return Reply(
            failure=f"{KEY}: {name} gave {len(values)} rewards for {wanted} completions. It must give one for each, "
            f"None where it does not apply"
        )
    bad = next((one for one in values if one is not None and not math.isfinite(one)), None)
    if bad is not None:
        return Reply(failure=not_finite(name, bad))
    return Reply(values, metrics=metrics, extra=extra)


def _numbers_in(told: Any, name: str) -> list[float | None]:
    """What a function gave. Raises UserError for what is no list of numbers, though Python could make one of it."""
    if isinstance(told, NO_LISTS):
        raise UserError(
            f"{KEY}: {name} gave a {type(told).__name__}. It must give a list: a number for each completion, in their "
            f"order, None where it does not apply"
        )
    given = list(told)
    text = next((one for one in given if isinstance(one, str | bytes)), None)
    if text is not None:
        raise UserError(f"{KEY}: {name} gave {text!r:.60}. A reward is a number, or None")
    return [None if one is None else float(one) for one in given]


def _plain(value: Any) -> Any:
    """What a function has logged of a completion, so that it can be sent and shown."""
    if value is None or isinstance(value, bool):
        return value
    # A class of one's own, such as an Enum, could not be read by whoever asked.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else str(value)


def seed_random(text: str) -> None:
    """Random numbers are the same when a round is scored again."""
    random.seed(text)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(random.getrandbits(32))


def main(descriptor: int) -> None:
    """Answer until the connection ends."""
    connection = Connection(descriptor)
    # What functions print is no part of any answer.
    sys.stdout = sys.stderr
    calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, calls), daemon=True).start()
    functions: Loaded = calls.get()
    # Held as long as the process lives: what is not held ends.
    local = ExitStack()
    try:
        found = loaded(functions, local)
    except UserError as error:
        connection.send(Reply(failure=str(error)))
        return
    connection.send(Reply())
    while True:
        call: Call = calls.get()
        name = functions.names[call.function]
        connection.send(answer(found[call.function], name, functions.files, call))


def _read(connection: Connection, calls: "queue.SimpleQueue[Any]") -> None:
    try:
        while True:
            calls.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
