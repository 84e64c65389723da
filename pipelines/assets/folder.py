"""Every YAML of a folder as a group of Dagster assets."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from tunemill.pipelines.assets.assets import asset_key, build_assets
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.load import load_pipeline
from tunemill.pipelines.graph.places import plain_name
from tunemill.pipelines.run.materialize import Session
from tunemill.resources.launcher import Launcher, in_child
from tunemill.resources.store import Store


def build_definitions(folder: Path, state: Path | None = None, launch: Launcher = in_child) -> dg.Definitions:
    """Definitions of every pipeline below a folder, to serve alone or to merge into a project's own.

    `state` is where results live (default: `.tunemill` in the folder). A YAML with problems becomes one
    asset that shows them, so that it cannot take the other pipelines down.
    """
    store = Store(state or folder / ".tunemill")
    assets: list[dg.AssetsDefinition] = []
    names: dict[str, Path] = {}
    for path in pipeline_files(folder):
        try:
            pipeline = load_pipeline(path)
        except ConfigError as error:
            warnings.warn(str(error), stacklevel=1)
            assets.append(_broken(str(path.relative_to(folder).with_suffix("")), error))
            continue
        if pipeline.name in names:
            raise ValueError(
                f"{path}: the pipeline's name {pipeline.name!r} is taken by {names[pipeline.name]}; give one of them "
                f"another `pipeline.name`"
            )
        names[pipeline.name] = path
        assets += build_assets(Session(pipeline, store, launch))
    return dg.Definitions(assets=assets, executor=dg.in_process_executor)


def pipeline_files(folder: Path) -> Iterator[Path]:
    """The YAMLs below a folder that look like pipelines: a mapping with the keys that every graph needs."""
    needed = {key for key, field in GraphConfig.model_fields.items() if field.is_required()}
    for path in sorted([*folder.rglob("*.yml"), *folder.rglob("*.yaml")]):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            data: Any = yaml.safe_load(path.read_text())
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(data, dict) and needed <= data.keys():
            yield path


def _broken(name: str, error: ConfigError) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(plain_name(name), "config_error"),
        description=f"This pipeline's YAML has problems:\n\n{error}",
        group_name="config_errors",
    )
    def broken() -> None:
        raise dg.Failure(description=str(error), allow_retries=False)

    return broken
