"""What a task's templates and functions raise for one of its rows, told with the task and the row."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.harness.tasks_body import WRONG, Loaded

# What lm_eval asks of a task about a row, which comes first.
ASKED = ("doc_to_text", "doc_to_target", "doc_to_choice", "process_results")


def tell_rows(tasks: Loaded) -> None:
    """Let each task say of what goes wrong in it at which of its rows that was. The first row is read before."""
    for name, task in tasks.tasks.items():
        for asked in ASKED:
            setattr(task, asked, _told(getattr(task, asked), name, task, asked))


def _told(function: Callable[..., Any], name: str, task: Any, asked: str) -> Callable[..., Any]:
    @wraps(function)
    def call(row: Any, *arguments: Any, **more: Any) -> Any:
        try:
            return function(row, *arguments, **more)
        except UserError:
            raise
        except (*WRONG, ArithmeticError, LookupError, SyntaxError) as error:
            reason = " ".join(str(error).split())
            where = f"task {name}: {_place(task, row)}: {asked}"
            raise UserError(
                f"{where}: {type(error).__name__}: {reason}. Mend the task, or the row"
            ) from error

    return call


def _place(task: Any, row: Any) -> str:
    number = next((number for number, one in enumerate(task.eval_docs) if one == row), None)
    return "one of its examples" if number is None else f"row {number + 1} (doc_id {number})"
