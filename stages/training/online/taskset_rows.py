"""The tasks of a taskset of verifiers as rows of prompts, one JSON a line.

    python -m tunemill.stages.training.online.taskset_rows my_tasks.MyTaskset > data/tasks.jsonl
    python -m tunemill.stages.training.online.taskset_rows verifiers:my-tasks --limit 1000 > data/tasks.jsonl

A row has the question as messages, and beside it, in the column `task`, all that the task's rewards want to know.
"""

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunemill.stages.errors import UserError
from tunemill.stages.own_classes import dotted
from tunemill.stages.training.online.taskset_scores import installed_class, is_class_of_tasks, made
from tunemill.stages.training.online.tasksets import TASK, fault_of_package, fault_of_taskset, is_taskset


def rows_of(name: str, limit: int | None) -> Iterator[dict[str, Any]]:
    """The rows. Raises UserError where there is no such taskset, or one that never ends."""
    kind = _class_of(name)
    if kind.INFINITE and limit is None:
        raise UserError(f"{name} never ends. Say how many with --limit")
    for number, task in enumerate(itertools.islice(made(kind, name), limit), 1):
        yield {"prompt": _messages(task.data, f"{name}, task {number}"), TASK: task.data.model_dump_json()}


def _class_of(name: str) -> Any:
    reason = fault_of_taskset(name) if is_taskset(name) else fault_of_package()
    if reason is not None:
        raise UserError(reason)
    if is_taskset(name):
        return installed_class(name)
    module, _, inner = dotted(name).rpartition(".")
    if not module:
        raise UserError(f"{name} is no name of a taskset. Write my_module.MyTaskset, or verifiers:my-tasks")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), inner, None)
    except ModuleNotFoundError as error:
        raise UserError(f"{name}: {error}. Go to the folder of {module}") from None
    if not is_class_of_tasks(found):
        raise UserError(f"{name} is no taskset of verifiers (a class of vf.Taskset)")
    return found


def _messages(data: Any, where: str) -> list[dict[str, Any]]:
    if data.prompt is None:
        raise UserError(
            f"{where}: it has no prompt: somebody is to open the conversation, and nobody does here"
        )
    asked = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    if isinstance(data.prompt, str):
        return [*asked, {"role": "user", "content": data.prompt}]
    for one in data.prompt:
        said = one.model_dump(exclude_none=True)
        if said.keys() != {"role", "content"}:
            raise UserError(f"{where}: its prompt has calls of tools, which rows of prompts do not have")
        asked.append(said)
    return asked


def main(arguments: list[str]) -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(prog="python -m tunemill.stages.training.online.taskset_rows")
    parser.add_argument(
        "taskset", help="my_module.MyTaskset of a file here, or verifiers:ID of an installed one"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="most rows")
    options = parser.parse_args(arguments)
    try:
        for row in rows_of(options.taskset, options.limit):
            print(json.dumps(row, ensure_ascii=False))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
