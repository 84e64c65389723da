"""A task of inspect-ai in a folder: its rows, a scorer of its own in a file beside it."""

from pathlib import Path

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from scorers import lengths

@task
def sums(instruction=""):
    rows = json_dataset("rows.jsonl", FieldSpec(input="question", target="answer"))
    for row in rows:
        row.input = instruction + row.input
    return Task(dataset=rows, solver=[generate()], scorer=[includes(), lengths()])

@task()
def broken():
    raise ValueError("no rows on Sundays")
"""
SCORERS = """
from inspect_ai.scorer import Score, mean, scorer, stderr

@scorer(metrics=[mean(), stderr()])
def lengths():
    async def score(state, target):
        return Score(value=len(state.output.completion), answer=state.output.completion)
    return score
"""
ROWS = "".join(f'{{"question": "{n} + {n}", "answer": "{2 * n}"}}\n' for n in range(1, 5))


def write_task(folder: Path) -> Path:
    """The file of the tasks `sums` and `broken`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scorers.py").write_text(SCORERS)
    (folder / "rows.jsonl").write_text(ROWS)
    (folder / "task.py").write_text(TASK)
    return folder / "task.py"
