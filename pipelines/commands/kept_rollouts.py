"""The completions that the training of a pipeline has kept."""

import argparse
from typing import TYPE_CHECKING

from tunemill.pipelines.commands.options import store_of
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Store

if TYPE_CHECKING:
    from tunemill.pipelines.graph.nodes import Pipeline
    from tunemill.stages.training.online.browsed import Kept


def kept_of(options: argparse.Namespace) -> tuple["Pipeline", Store, "Kept"]:
    """Those of the artifact that the node has now, whatever its YAML asks for by now. Raises StoreError."""
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.pipelines.run.team import artifact_behind
    from tunemill.stages.training.online.browsed import read_kept

    pipeline = load_pipeline(options.pipeline, options.overrides)
    store = store_of(options, named=pipeline.store, looks=True)
    ref = store.ref(pipeline.name, options.node)
    if ref is None:
        raise StoreError(
            f"{pipeline.name}/{options.node}: nothing has been computed yet. tunemill run {options.pipeline}"
        )
    return pipeline, store, read_kept(artifact_behind(store, f"{pipeline.name}/{options.node}", ref).folder)
