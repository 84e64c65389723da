"""Whether a folder is the adapter that a pipeline has trained."""

from pathlib import Path

from tunemill.pipelines.graph.nodes import Pipeline
from tunemill.resources.local import local_path
from tunemill.stages.artifacts import Adapter


def is_own_adapter(pipeline: Pipeline, given: str) -> bool:
    """Whether it is `output_dir`, or the link there to the adapter: what Axolotl's command lines name."""
    if pipeline.output_dir is None:
        return False
    folder = local_path(given, "--lora-model-dir").absolute()
    links = [
        pipeline.output_dir / node.name for node in pipeline.nodes if issubclass(node.stage.output, Adapter)
    ]
    return bool(links) and folder.resolve() in [
        place.absolute().resolve() for place in (Path(pipeline.output_dir), *links)
    ]
