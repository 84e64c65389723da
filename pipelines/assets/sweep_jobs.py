"""A job in Dagster for each sweep: all of its points in one run, what they share once."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.sweep_settings import swept_nodes


def build_sweep_jobs(pipelines: Sequence[Pipeline]) -> list[Any]:
    """One for each sweep, over the points that it runs; the points are groups of assets as other pipelines are."""
    sweeps: dict[str, list[Pipeline]] = {}
    for pipeline in pipelines:
        if pipeline.point is not None:
            sweeps.setdefault(pipeline.point.sweep, []).append(pipeline)
    return [_job(name, points) for name, points in sweeps.items()]


def _job(sweep: str, points: Sequence[Pipeline]) -> Any:
    run = [pipeline for pipeline in points if pipeline.point and pipeline.point.left_out is None]
    keys = [asset_key(pipeline.name, node.name) for pipeline in run for node in swept_nodes(pipeline)]
    left_out = "" if len(run) == len(points) else f", the first ones of {len(points)} (max_runs)"
    names = ", ".join(pipeline.point.name for pipeline in run if pipeline.point)
    return dg.define_asset_job(
        f"{sweep}_sweep",
        selection=dg.AssetSelection.assets(*keys),
        description=f"Brings {len(run)} points of the sweep up to date{left_out}: {names}. Each is trained to its end; "
        "`tunemill sweep` on the command line stops some at rungs, and says which is the best.",
        tags={"tunemill/sweep": sweep},
    )
