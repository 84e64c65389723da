"""The completions that the training of a pipeline has kept."""

import argparse
from typing import TYPE_CHECKING

from tunemill.pipelines.commands.options import store_of
from tunemill.resources.errors import StoreError

if TYPE_CHECKING:
    from tunemill.pipelines.graph.nodes import Pipeline
    from tunemill.stages.training.online.browsed import Kept


def kept_of(options: argparse.Namespace) -> tuple["Pipeline", "Kept"]:
    """Those of the artifact that the node has now, whatever its YAML asks for by now. Raises StoreError."""
    from tunemill.pipelines.graph.load import load_pipeline
    from tunemill.stages.training.online.browsed import read_kept

    pipeline, store = load_pipeline(options.pipeline, options.overrides), store_of(options, looks=True)
    ref = store.ref(pipeline.name, options.node)
    if ref is None:
        raise StoreError(
            f"{pipeline.name}/{options.node}: nothing has been computed yet. tunemill run {options.pipeline}"
        )
    return pipeline, read_kept(store.folder(ref.stage, ref.key))
