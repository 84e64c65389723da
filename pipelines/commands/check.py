"""`tunemill check`: are YAMLs right, and what they name on this machine there? Reads no rows, asks no network."""

import argparse
import os
import shutil
import sys
from typing import Any

from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipelines,
    lines_of_notes,
    print_json,
)
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.config.spans import escaped
from tunemill.pipelines.graph.check_files import Checked, check_files
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.looks import everything
from tunemill.pipelines.graph.sweep import Sweep, is_sweep, load_sweep
from tunemill.pipelines.run.figures import count_of
from tunemill.resources.local import is_folder
from tunemill.resources.redaction import redacted, secrets_in


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "check", check, text)
    add_pipelines(parser)
    add_json(parser)


def check(options: argparse.Namespace) -> int:
    """Print every problem and every note; 1 if there is any problem."""
    if len(options.pipelines) > 1 or is_folder(options.pipelines[0]):
        return _check_many(options)
    (path,) = options.pipelines
    try:
        if is_sweep(path, options.overrides):
            sweep = load_sweep(path, options.overrides, everything)
            notes, right = sweep.notes, _sweep_words(sweep)
        else:
            pipeline = load_pipeline(path, options.overrides, everything)
            notes, right = pipeline.notes, f"{len(pipeline.nodes)} nodes"
    except ConfigError as error:
        if not options.json:
            raise
        print_json([problem.as_json() for problem in error.ordered()])
        return 1
    if options.json:
        print_json([note.as_json() for note in notes])
        return 0
    for line in lines_of_notes(notes, path.resolve()):
        print(line)
    print(f"{path}: no problem; {right}")
    return 0


def _sweep_words(sweep: Sweep) -> str:
    """`a sweep of 2 points of 16 nodes each: lr_0_001, lr_0_0005`."""
    names = [point.name for one in sweep.pipelines if (point := one.point) is not None]
    sizes = sorted({len(one.nodes) for one in sweep.pipelines})
    size = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return f"a sweep of {count_of(len(names), 'point')} of {size} nodes each: {', '.join(names)}"


def _check_many(options: argparse.Namespace) -> int:
    """The same of several files, and of those in folders; problems go to stderr as they do for one file."""
    checked = check_files(options.pipelines, options.overrides)
    wrong = [item for item in checked if item.is_wrong]
    if options.json:
        print_json([item.as_json() for item in checked])
        return 1 if wrong else 0
    secrets = secrets_in([override.text for override in options.overrides], os.environ)
    width = shutil.get_terminal_size().columns
    for item in checked:
        for line in item.lines(width):
            print(escaped(redacted(line, secrets)), file=sys.stderr if item.is_wrong else sys.stdout)
    print(_counts(checked))
    return 1 if wrong else 0


def _counts(checked: list[Checked]) -> str:
    """`12 files: 10 without a problem, 2 with 5 problems`."""
    wrong = [item for item in checked if item.is_wrong]
    right = f"{count_of(len(checked), 'file')}: {len(checked) - len(wrong)} without a problem"
    problems = sum(not problem.is_note for item in wrong for problem in item.problems)
    return f"{right}, {len(wrong)} with {count_of(problems, 'problem')}" if wrong else right
