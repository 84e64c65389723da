"""`output_dir`: a folder of links to a pipeline's results, where a user of Axolotl looks for the model."""

import uuid

from tunemill.pipelines.graph import Node, Pipeline
from tunemill.resources.store import Published


def link_result(pipeline: Pipeline, node: Node, published: Published) -> None:
    """Point `<output_dir>/<node>` to the data of a model or an evaluation; other nodes have no link."""
    if pipeline.output_dir is None or not node.stage.output.exported:
        return
    link = pipeline.output_dir / node.name
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{uuid.uuid4().hex}")
    beside.symlink_to(published.data)
    beside.replace(link)
