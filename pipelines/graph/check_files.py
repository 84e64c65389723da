"""Many YAMLs at once: what is wrong with each, and with those of one folder beside each other."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.document import problem_at
from tunemill.pipelines.config.overrides import Override
from tunemill.pipelines.config.pipeline_files import pipeline_files
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.graph.clashes import clashes
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import LookAt, everything, nothing
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.sweep import is_sweep, load_sweep, shown_place
from tunemill.resources.errors import StoreError
from tunemill.resources.local import is_folder
from tunemill.resources.redaction import redacted

NO_PIPELINE = (
    "there is no pipeline in this folder or below: no file that ends in .yml or .yaml and has a base_model; name the "
    "file, or another folder"
)


@dataclass(frozen=True)
class Checked:
    """A file with its problems and notes, in its order. `pipelines` are what it says, whatever is on this machine: one,
    or the points of its sweep.
    """

    file: Path
    problems: tuple[Problem, ...]
    pipelines: tuple[Pipeline, ...] = ()

    @property
    def is_wrong(self) -> bool:
        return not all(problem.is_note for problem in self.problems)

    def lines(self, width: int) -> list[str]:
        """The problems with the lines at fault; of what is right, the notes alone."""
        if is_folder(self.file):
            return [f"{self.file}: {problem.message}" for problem in self.problems]
        if self.is_wrong:
            return ConfigError(self.file, self.problems).shown(width)
        return [note.line_in(self.file) for note in self.problems]

    def as_json(self) -> dict[str, Any]:
        return {
            "file": redacted(str(self.file)),
            "problems": [problem.as_json() for problem in self.problems],
        }


def check_files(named: Sequence[Path], overrides: Sequence[str | Override] = ()) -> list[Checked]:
    """Check files, and the pipelines below folders, each once, in the order in which they are named.

    A folder without a pipeline is a problem itself. The pipelines of a folder must get on with each other.
    """
    checked: dict[str, Checked] = {}
    for name in named:
        files = list(pipeline_files(name)) if is_folder(name) else [name]
        if not files:
            checked[_place(name)] = Checked(name, (Problem("", 1, 1, "value", NO_PIPELINE),))
        for file in files:
            place = _place(file)
            if place not in checked:
                checked[place] = _check(file, overrides)
        if is_folder(name):
            _add_clashes(checked, [_place(file) for file in files])
    return list(checked.values())


def _place(file: Path) -> str:
    """One name for a file however it is named; a link is a pipeline of its own, as in the UI."""
    return os.path.abspath(file)  # noqa: PTH100  follows no links


def _check(file: Path, overrides: Sequence[str | Override]) -> Checked:
    try:
        notes, pipelines = _load(file, overrides, everything)
    except ConfigError as error:
        return Checked(file, tuple(error.ordered()), _as_written(file, overrides))
    except StoreError as error:
        return Checked(file, (Problem("", 1, 1, "value", str(error)),))
    return Checked(file, tuple(sorted(notes, key=lambda note: note.order)), pipelines)


def _load(
    file: Path, overrides: Sequence[str | Override], look_at: LookAt
) -> tuple[tuple[Problem, ...], tuple[Pipeline, ...]]:
    """The notes and the pipelines of a YAML. Raises ConfigError."""
    if is_sweep(file, overrides):
        sweep = load_sweep(file, overrides, look_at)
        return sweep.notes, sweep.pipelines
    pipeline = load_pipeline(file, overrides, look_at)
    return pipeline.notes, (pipeline,)


def _as_written(file: Path, overrides: Sequence[str | Override]) -> tuple[Pipeline, ...]:
    """The pipelines where only what they name is not there: their names are taken all the same."""
    try:
        return _load(file, overrides, nothing)[1]
    except ConfigError:
        return ()


def _add_clashes(checked: dict[str, Checked], places: Sequence[str]) -> None:
    """Add what is wrong with the files of one folder beside each other."""
    items = {
        shown_place(checked[place].file, pipeline): (place, pipeline)
        for place in places
        for pipeline in checked[place].pipelines
    }
    pipelines = {file: pipeline for file, (_, pipeline) in items.items()}
    for file, clash in clashes(pipelines).items():
        place, _ = items[file]
        item = checked[place]
        problem = problem_at(clash.place, pipelines[file].document, "conflict", clash.message)
        if problem not in item.problems:
            problems = sorted([*item.problems, problem], key=lambda each: each.order)
            checked[place] = replace(item, problems=tuple(problems))
