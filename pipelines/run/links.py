"""Links to a pipeline's results, where a user of Axolotl looks for them."""

import uuid
from pathlib import Path

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.errors import StoreError
from tunemill.resources.store import Published
from tunemill.stages.artifacts import PreferenceData, TrainingData


def link_result(pipeline: Pipeline, node: Node, published: Published) -> None:
    """Link models and evaluations below `output_dir`, training data below `dataset_prepared_path`."""
    if node.stage.output.exported:
        _link(pipeline.output_dir, node, published)
    elif issubclass(node.stage.output, TrainingData | PreferenceData):
        _link(pipeline.prepared_path, node, published)


def _link(folder: Path | None, node: Node, published: Published) -> None:
    if folder is None:
        return
    link = folder / node.name
    if link.is_symlink() and link.readlink() == published.data:
        return
    beside = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        beside.symlink_to(published.data)
        beside.replace(link)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise StoreError(
            f"{link}: no link to {node.name} can be put there ({error.strerror}); move away what is there, or set "
            f"another output_dir or dataset_prepared_path. The result itself is in {published.data}"
        ) from error
