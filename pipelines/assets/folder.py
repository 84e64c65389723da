"""Every YAML of a folder as a group of Dagster assets."""

import itertools
import warnings
from functools import cache
from pathlib import Path

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key, build_assets
from tunemill.pipelines.assets.clear_error import ClearError
from tunemill.pipelines.assets.collecting import not_collecting
from tunemill.pipelines.assets.gate_checks import build_checks
from tunemill.pipelines.assets.jobs import JOBS_UP_TO
from tunemill.pipelines.assets.operations import Operations, build_operations
from tunemill.pipelines.assets.sensors import build_observer
from tunemill.pipelines.assets.sources import build_sources
from tunemill.pipelines.assets.summary import summary_asset
from tunemill.pipelines.assets.sweep_jobs import build_sweep_jobs
from tunemill.pipelines.assets.trackers import FROM_YAML
from tunemill.pipelines.config.pipeline_files import pipeline_files
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.clashes import clashes, step_names
from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.pipelines.graph.places import plain_name
from tunemill.pipelines.graph.sweep import load_all, shown_place
from tunemill.pipelines.run.look import look
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.errors import StoreError
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.local import local_path
from tunemill.resources.objects import NO_TEAM
from tunemill.resources.store import Store

CONFIG_ERROR = "config_error"
LINES_SHOWN = 20


@not_collecting()
def build_definitions(
    folder: Path,
    state: Path | None = None,
    launch: Launcher = in_child,
    trackers: dg.ResourceDefinition = FROM_YAML,
    label: str = "",
    team: str | None = None,
) -> dg.Definitions:
    """Definitions of every pipeline below a folder, to serve alone or to merge into a project's own.

    `state` is where results live (default: `.tunemill` in the folder). `trackers` is the resource through which the
    figures of trainings go to W&B and its like: `Trackers(enabled=False).get_resource_definition()` keeps them here.
    `team` is the URL of a store that a team shares, in place of those that the YAMLs name; `off` for none at all.
    `label` tells what is named after the folder as a whole from that of other folders in one project.
    A YAML with problems, or one that does not get on with the others, becomes one asset that shows them, so that it
    cannot take the other pipelines down.
    """
    store = Store(local_path(state or folder / ".tunemill", "the state folder"))

    @cache
    def before(url: str | None) -> Store:
        return store if url in (None, NO_TEAM) else store.before(str(url))

    pipelines, broken = load_folder(folder)
    count = len(pipelines)
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = []
    operations = Operations()
    checks: list[dg.AssetChecksDefinition] = []
    for path, pipeline in list(pipelines.items()):
        try:
            own_store = before(pipeline.store if team is None else team)
            session = Session(pipeline, own_store, launch)
            # All of a pipeline, or nothing of it.
            seen = look(pipeline, own_store)
            computed = build_assets(session, trackers, seen)
            own: list[dg.AssetsDefinition | dg.AssetSpec] = [
                *computed,
                *build_sources(session),
                summary_asset(seen, count),
            ]
            gates = build_checks(session)
            # An asset runs with all of its own checks, or not at all.
            own_operations = build_operations(session, [*computed, *gates], gates)
            if count > JOBS_UP_TO:
                own_operations = own_operations.needed_jobs()
        except (ConfigError, StoreError, OSError) as error:
            broken[path] = f"{path}: {error}"
            del pipelines[path]
            continue
        assets += own
        checks += gates
        operations += own_operations
    taken = {step for pipeline in pipelines.values() for step in step_names(pipeline)}
    for path, message in broken.items():
        warnings.warn(message, stacklevel=1)
        name = _own_name(Path(label, path.relative_to(folder)), taken)
        assets.append(_broken(name, message))
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[*operations.jobs, *build_sweep_jobs(list(pipelines.values()))],
        schedules=operations.schedules,
        sensors=[
            *operations.sensors,
            *build_observer([(one, store.stat_cache) for one in pipelines.values()], label),
        ],
        executor=dg.in_process_executor,
    )


def load_folder(folder: Path) -> tuple[dict[Path, Pipeline], dict[Path, str]]:
    """The pipelines below a folder that can be shown together, and what is wrong with each of the others.

    Of two with one name the one that lies less deep counts, then the first by name.
    """
    pipelines: dict[Path, Pipeline] = {}
    broken: dict[Path, str] = {}
    for path in pipeline_files(folder):
        try:
            pipelines |= {shown_place(path, pipeline): pipeline for pipeline in load_all(path)}
        except ConfigError as error:
            broken[path] = "\n".join(_first(error.lines()))
    for path, clash in clashes(pipelines).items():
        broken[path] = f"{path}: {clash.message}"
        del pipelines[path]
    return pipelines, broken


def _own_name(file: Path, taken: set[str]) -> str:
    """A plain name for what is wrong with a file, and taken from now on."""
    plain = plain_name(str(file.with_suffix("")))
    numbered = (f"{plain}_{count}" for count in itertools.count(2))
    name = next(
        name for name in itertools.chain((plain,), numbered) if f"{name}__{CONFIG_ERROR}" not in taken
    )
    taken.add(f"{name}__{CONFIG_ERROR}")
    return name


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - LINES_SHOWN
    return [*lines[:LINES_SHOWN], f"and {more} more"] if more > 0 else lines


def _broken(name: str, message: str) -> dg.AssetsDefinition:
    # Names of files may hold bytes that are no text.
    shown = message.encode("utf-8", "backslashreplace").decode()

    @dg.asset(
        key=asset_key(name, CONFIG_ERROR),
        description=f"This pipeline's YAML has problems:\n\n{shown}",
        group_name="config_errors",
    )
    def broken() -> None:
        raise ClearError(shown)

    return broken
