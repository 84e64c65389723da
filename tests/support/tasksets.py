"""Tasksets of verifiers, and what the library itself says of completions of their tasks."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from support.own_environment import ROOT

# Letters to be sorted, as in `support.online`.
LETTERS = """
import verifiers.v1 as vf


class LetterData(vf.TaskData):
    answer: str = ""


class LetterTask(vf.Task[LetterData]):
    async def finalize(self, trace):
        trace.info["said"] = trace.last_reply

    @vf.reward(weight=2.0)
    async def right(self, trace) -> float:
        said, wanted = trace.info["said"], self.data.answer
        return sum(a == b for a, b in zip(said, wanted)) / max(len(said), len(wanted))

    @vf.reward
    async def brief(self, task, trace) -> float:
        if "bad" in trace.last_reply:
            raise ValueError("a bad word")
        return -len(trace.last_reply) / 100 - len(task.prompt) / 1000

    @vf.metric
    async def turns(self, trace) -> float:
        return float(trace.num_turns)


class LettersConfig(vf.TasksetConfig):
    most: int = 8


class Letters(vf.Taskset[LetterTask, LettersConfig]):
    def load(self):
        for word in ("cab", "bac", "acb", "bca", "cba", "abc", "aab", "cbb")[: self.config.most]:
            answer = " ".join(sorted(word))
            yield LetterTask(LetterData(prompt=" ".join(word), answer=answer, system_prompt="Sort."), self.config.task)


class Few(Letters):
    def __init__(self, config):
        super().__init__(config.model_copy(update={"most": 2}))


class SandboxedTask(vf.Task[LetterData]):
    @vf.reward
    async def passes(self, trace, runtime) -> float:
        return 1.0


class InSandbox(vf.Taskset[SandboxedTask, vf.TasksetConfig]):
    def load(self):
        yield SandboxedTask(LetterData(prompt="a"))


class ToolTask(vf.Task[LetterData]):
    @classmethod
    def toolsets(cls, config):
        return [object()]


class WithTools(vf.Taskset[ToolTask, vf.TasksetConfig]):
    def load(self):
        yield ToolTask(LetterData(prompt="a"))


class Unjudged(vf.Taskset[vf.Task[LetterData], vf.TasksetConfig]):
    def load(self):
        yield vf.Task[LetterData](LetterData(prompt="a"))


__all__ = ["Letters"]
"""
# By the library's own turns of a conversation, and its own scoring of a rollout that has ended.
BY_LIBRARY = """
import asyncio, json, sys
import verifiers.v1 as vf
from verifiers.v1.graph import prepare_turn
from verifiers.v1.state import state_cls
from verifiers.v1.types import Response
from letter_tasks import Letters, LetterTask, LetterData

def scored(prompt, answer, texts):
    task = LetterTask(LetterData(prompt=prompt, answer=answer))
    trace = vf.Trace(
        task=vf.TraceTask(type="LetterTask", data=task.data), state=state_cls(LetterTask)(),
        agent=vf.AgentInfo(config=vf.AgentConfig()),
    )
    said = [vf.UserMessage(content=prompt)]
    for place, text in enumerate(texts):
        message = vf.AssistantMessage(content=text)
        answer = Response(id=str(place), created=0, model="m", message=message, finish_reason="stop")
        prepare_turn(trace, said).commit(answer)
        said += [message, vf.UserMessage(content="again")]
    asyncio.run(task.finalize(trace))
    asyncio.run(task.score(trace))
    return trace.reward

print(json.dumps([scored(*one) for one in json.load(sys.stdin)]))
"""


def letter_tasks(folder: Path) -> Path:
    """A file of these tasksets."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "letter_tasks.py"
    path.write_text(LETTERS)
    return path


def by_library(folder: Path, packages: str, asked: Sequence[tuple[str, str, Sequence[str]]]) -> list[Any]:
    """What verifiers gives for completions: each is a prompt, an answer, and what was said in turn."""
    letter_tasks(folder)
    done = subprocess.run(
        [sys.executable, "-c", BY_LIBRARY], input=json.dumps(asked), capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), packages])},
    )  # fmt: skip
    found: list[Any] = json.loads(done.stdout)
    return found


def paths(*more: str | Path) -> str:
    """A PYTHONPATH with this project."""
    return os.pathsep.join([str(ROOT), *map(str, more)])
