"""`tunemill sweep`: every point of a sweep brought up to date, and the best of them."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunemill.pipelines.commands.arguments import quoted
from tunemill.pipelines.commands.options import (
    add_command,
    add_json,
    add_pipeline,
    add_state,
    count_of,
    lines_of_notes,
    print_json,
    refuse_unwritable,
    store_of,
)
from tunemill.pipelines.config.overrides import override_of

if TYPE_CHECKING:
    from tunemill.pipelines.graph.sweep import Sweep
    from tunemill.pipelines.run.sweep import PointRun

UNDONE = ("failed", "not finished")


def add_to(commands: Any, text: str) -> None:
    """Add the command."""
    parser = add_command(commands, "sweep", sweep, text)
    add_pipeline(parser)
    add_state(parser)
    add_json(parser)
    parser.add_argument(
        "--metric",
        metavar="NAME",
        help="the figure by which a point is the best (pipeline.sweep_settings.metric)",
    )
    parser.add_argument(
        "--parallel",
        type=count_of("points", least=1),
        metavar="N",
        help="compute so many points at once (default: 1, or as many as there are --gpus)",
    )
    parser.add_argument(
        "--gpus",
        type=_gpus,
        default=(),
        metavar="0,1",
        help="train and evaluate on each of these GPUs at once, a point on each (default: points take turns)",
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page that compares the points")


def sweep(options: argparse.Namespace) -> int:
    """Run all points and say which is the best; 1 if one failed or time was over."""
    # Only here: whoever asks for help waits for nothing else.
    from tunemill.pipelines.assets.sweep_run import run_sweep
    from tunemill.pipelines.commands.signals import end_on_interrupt_and_term
    from tunemill.pipelines.commands.sweep_best import best_of
    from tunemill.pipelines.commands.watched import Interrupted
    from tunemill.pipelines.graph.sweep_plan import plan_sweep
    from tunemill.pipelines.run.sweep_display import show_sweep

    loaded = _load(options)
    if options.html is not None:
        refuse_unwritable(options.html)
    for line in [*lines_of_notes(loaded.notes, loaded.document.path), *_notes_on_gpus(options.gpus, loaded)]:
        print(line, file=sys.stderr)
    store = store_of(options, make=True, named=loaded.store)
    planned = plan_sweep(loaded, store)
    end_on_interrupt_and_term()
    points: list[PointRun] = []
    parallel = options.parallel or max(1, len(options.gpus))
    try:
        with show_sweep([one.point.name for one in loaded.pipelines if one.point]) as display:
            for point in run_sweep(loaded, planned, store, display, parallel, gpus=options.gpus):
                display.ended(point)
                points.append(point)
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; nothing half-done was published. The same command goes on from what is there"
        ) from None
    order = [one.name for one in loaded.pipelines]
    points.sort(key=lambda point: order.index(point.pipeline.name))
    best = best_of(points, loaded.settings)
    if options.html is not None:
        from tunemill.pipelines.commands.sweep_html import page
        from tunemill.pipelines.report.write import write_page

        write_page(options.html, page(loaded, points, best))
    if options.json:
        told = None if best is None else best.as_json()
        print_json({"sweep": loaded.name, "points": [_as_json(point) for point in points], "best": told})
    else:
        from tunemill.pipelines.commands.sweep_text import show_outcome

        show_outcome(loaded, points, best)
        if options.html is not None:
            print(f"the page: {options.html}")
    return 1 if any(point.state in UNDONE for point in points) else 0


def _load(options: argparse.Namespace) -> "Sweep":
    """The sweep of the command line. Raises ConfigError, and SettingError where there is none."""
    from tunemill.pipelines.config.document import read_document
    from tunemill.pipelines.graph.looks import everything
    from tunemill.pipelines.graph.sweep import is_sweep, load_sweep
    from tunemill.pipelines.graph.sweep_settings import rung_overrides, settings_of
    from tunemill.stages.errors import SettingError

    if options.metric is not None:
        options.overrides.append(override_of(f"pipeline.sweep_settings.metric={quoted(options.metric)}"))
    if not is_sweep(options.pipeline, options.overrides):
        raise SettingError(
            f"{options.pipeline}: there is nothing to sweep over. Give pipeline.sweep, keys with lists of values, "
            f"or --sweep FILE; of one point `tunemill run` with --point NAME"
        )
    document = read_document(options.pipeline, options.overrides)
    rungs = rung_overrides(settings_of(document), document)
    return load_sweep(options.pipeline, [*options.overrides, *rungs], everything)


def _as_json(point: "PointRun") -> dict[str, Any]:
    assert point.pipeline.point is not None, "of a sweep"
    return {
        "point": point.name,
        "pipeline": point.pipeline.name,
        "values": dict(point.pipeline.point.values),
        "state": point.state,
        "why": point.why,
        "seconds": round(point.seconds, 3),
        "key": point.key,
        "held_out": {str(step): loss for step, loss in point.curve.held_out.items()},
        "nodes": [_node_json(point, node.name) for node in point.nodes],
    }


def _node_json(point: "PointRun", name: str) -> dict[str, Any]:
    result = point.results.get(name)
    state = "failed" if name in point.failures else "not computed" if result is None else result.state
    return {
        "node": name,
        "state": state,
        "digest": None if result is None else result.published.digest,
        "metrics": {} if result is None else dict(result.published.manifest["metrics"]),
        "message": point.failure(name) if name in point.failures else None,
    }


def _gpus(text: str) -> list[str]:
    names = [one.strip() for one in text.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} are no GPUs; give each once, as in 0,1")
    return names


def _notes_on_gpus(names: Sequence[str], sweep: "Sweep") -> Iterator[str]:
    """What `--gpus` asks for that is not there. Raises SettingError where it cannot be had."""
    from tunemill.pipelines.config.machine import has_gpu, visible_gpus
    from tunemill.stages.errors import SettingError

    if not names:
        return
    there = visible_gpus(os.environ)
    if has_gpu() and (missing := [name for name in names if name not in there]):
        raise SettingError(
            f"--gpus {','.join(names)}: {', '.join(missing)} cannot be seen. These can: {', '.join(there)}"
        )
    for pipeline in sweep.pipelines:
        if pipeline.launcher.count > 1:
            raise SettingError(
                f"--gpus gives each training one GPU, and {pipeline.name} trains in {pipeline.launcher.count} "
                f"processes. Write pipeline.launcher: {{kind: python}}, or leave --gpus out"
            )
    if not has_gpu():
        yield f"note: --gpus: this machine has none; {len(names)} trainings at once share its processor"
