"""Tasksets of verifiers as rewards: a completion becomes a trace, and its task scores it as verifiers itself does.

Where tasks are scored alone, without the sandbox, the tools or the harness that verifiers would run them in: what needs
one of those is refused, for verifiers leaves such rewards out without a word.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunemill.stages.errors import UserError
from tunemill.stages.training.online.tasksets import PACKAGE, TASK, taskset_id

HOOKS = ("setup", "finalize")
Messages = Sequence[Mapping[str, Any]]


def is_class_of_tasks(found: Any) -> bool:
    """Whether something is a taskset; verifiers is not imported for what cannot be one."""
    if not isinstance(found, type) or PACKAGE not in sys.modules:
        return False
    import verifiers.v1 as vf

    return issubclass(found, vf.Taskset)


def installed_class(name: str) -> Any:
    """The class of an installed taskset."""
    from verifiers.v1.utils.loaders import taskset_class

    return taskset_class(taskset_id(name))


def made(kind: Any, name: str) -> Any:
    """A taskset with its own defaults."""
    from verifiers.v1.configs.taskset import TasksetConfig
    from verifiers.v1.utils.generic import concrete_type

    config = concrete_type(kind, TasksetConfig) or TasksetConfig
    return kind(config(id=taskset_id(name)))


def scores_of(kind: Any, name: str) -> Callable[..., Any]:
    """A reward function, called as others are, that gives what tasks of this kind say; their parts are logged.

    Raises UserError for tasks that cannot be scored alone.
    """
    task_kind, taskset = kind.task_type(), made(kind, name)
    for reason in _refusals(kind, task_kind):
        raise UserError(f"{name}: {reason}. Here its tasks are scored alone, by what was said")

    async def scored(
        prompts: Sequence[Any], completions: Sequence[Any], log_metric: Callable[..., None], **columns: Any
    ) -> list[float]:
        rows = [{key: values[place] for key, values in columns.items() if isinstance(values, list)}
                for place in range(len(prompts))]  # fmt: skip
        tasks = [
            _task(task_kind, taskset, row, prompt, name) for row, prompt in zip(rows, prompts, strict=True)
        ]
        traces = [_trace(*one) for one in zip(tasks, prompts, completions, strict=True)]
        await asyncio.gather(*map(_score, tasks, traces))
        for trace in traces:
            given = {key: None if one is None else one.score for key, one in trace.rewards.items()}
            if lacking := [key for key, one in given.items() if one is None]:
                raise UserError(f"{name}: nothing was said of {lacking[0]}")
            if not given:
                raise UserError(f"{name}: its tasks have no reward")
            for key, value in {**given, **trace.metrics}.items():
                log_metric(f"{kind.__name__}/{key}", value)
        return [float(trace.reward) for trace in traces]

    return scored


def _refusals(kind: Any, task_kind: Any) -> Iterator[str]:
    """What scoring its tasks would need beside what was said."""
    import verifiers.v1 as vf

    for hook in HOOKS:
        method = getattr(task_kind, hook)
        if method is not getattr(vf.Task, hook) and _wants_runtime(method):
            yield f"{task_kind.__name__}.{hook} needs a sandbox (runtime)"
    for klass in task_kind.__mro__:
        for method_name, method in vars(klass).items():
            if callable(method) and hasattr(method, "reward") and _wants_runtime(method):
                yield f"{task_kind.__name__}.{method_name} needs a sandbox (runtime)"
    for owner, base in ((task_kind, vf.Task), (kind, vf.Taskset)):
        if owner.toolsets.__func__ is not base.toolsets.__func__:
            yield f"{owner.__name__} has tools, which verifiers serves beside a harness"


def _wants_runtime(method: Callable[..., Any]) -> bool:
    taken = inspect.signature(method).parameters.get("runtime")
    return taken is not None and taken.default is inspect.Parameter.empty


async def _score(task: Any, trace: Any) -> None:
    from verifiers.v1.errors import RolloutError
    from verifiers.v1.utils.decorators import invoke

    try:
        for hook in HOOKS:
            if getattr(type(task), hook) is not _of_all_tasks(hook):
                await invoke(getattr(task, hook), {"trace": trace})
        # Those that settings have added, too: verifiers leaves them out, and says so in its log alone.
        for asked in (*task.hooks("reward"), *(judge.score for judge in task.plugged_judges())):
            if _wants_runtime(asked):
                raise UserError(f"{type(task).__name__}: {asked.__qualname__} needs a sandbox (runtime)")
        await task.score(trace)
    except RolloutError as error:
        # What the task's own code raised, with its line.
        raise (error.__cause__ or error) from None


def _of_all_tasks(hook: str) -> Any:
    import verifiers.v1 as vf

    return getattr(vf.Task, hook)


def _task(kind: Any, taskset: Any, row: Mapping[str, Any], prompt: Any, name: str) -> Any:
    """The task of a row: the column `task` has all of it, or columns have the fields of its data."""
    import verifiers.v1 as vf

    data = kind.data_type()
    own = data.model_fields.keys() - vf.TaskData.model_fields.keys()
    if isinstance(row.get(TASK), str):
        found = data.model_validate_json(row[TASK])
    elif own and not own & row.keys():
        # All of them may have defaults, by which every completion would be judged.
        raise UserError(
            f"{name}: no column of the row is a field of {data.__name__} ({', '.join(sorted(own))}). Add them to the "
            f"rows, or a column {TASK!r} with the whole task as JSON"
        )
    else:
        given = {key: value for key, value in row.items() if key in data.model_fields}
        found = data.model_validate({**_asked(prompt), **given})
    config = taskset.config.task
    return kind(found, config if isinstance(config, kind.config_type()) else None)


def _asked(prompt: Any) -> dict[str, Any]:
    """A prompt as tasks have it: one question is a text, and what the system says stands by itself."""
    if isinstance(prompt, str):
        return {"prompt": prompt}
    system = [one["content"] for one in prompt if one["role"] == "system"]
    rest = [one for one in prompt if one["role"] != "system"]
    is_text = len(rest) == 1 and rest[0]["role"] == "user" and isinstance(rest[0]["content"], str)
    asked: Any = rest[0]["content"] if is_text else list(_messages(rest))
    return {"prompt": asked, **({"system_prompt": system[0]} if system else {})}


def _trace(task: Any, prompt: Any, completion: Any) -> Any:
    """What was said to a task, one message behind the other."""
    import verifiers.v1 as vf
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.state import state_cls

    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    said = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else list(completion)
    trace = vf.Trace(
        task=vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        state=state_cls(type(task))(),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
    )
    trace.nodes = [
        MessageNode(
            message=message,
            parent=place - 1 if place else None,
            sampled=place >= len(before) and message.role == "assistant",
        )
        for place, message in enumerate(_messages([*before, *said]))
    ]
    return trace


def _messages(messages: Messages) -> Iterator[Any]:
    """Messages as verifiers has them: each call has a number, by which what it gave names it."""
    import verifiers.v1 as vf

    calls, answered = 0, 0
    for one in messages:
        if one["role"] == "assistant":
            made_calls = [each["function"] for each in one.get("tool_calls") or []]
            asked = [
                vf.ToolCall(
                    id=f"call_{calls + place}", name=each["name"], arguments=_arguments(each.get("arguments"))
                )
                for place, each in enumerate(made_calls)
            ]
            calls += len(asked)
            yield vf.AssistantMessage(
                content=one.get("content"),
                reasoning_content=one.get("reasoning_content"),
                tool_calls=asked or None,
            )
        elif one["role"] == "tool":
            yield vf.ToolMessage(
                tool_call_id=f"call_{answered}", content=one["content"], name=one.get("name")
            )
            answered += 1
        else:
            yield (vf.SystemMessage if one["role"] == "system" else vf.UserMessage)(content=one["content"])


def _arguments(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given or {})
