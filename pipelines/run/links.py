"""Links to a pipeline's results, where a user of Axolotl looks for them."""

import uuid
from pathlib import Path

from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.store import Published, names_an_artifact
from tunemill.stages.artifacts import PreferenceData, TrainingData


def link_result(pipeline: Pipeline, node: Node, published: Published) -> str | None:
    """Link models and evaluations below `output_dir`, training data below `dataset_prepared_path`.

    Returns why there is no link, where there is none: the result is whole either way. Nothing of the user's is
    replaced, only links that an earlier run has put there.
    """
    link = link_of(pipeline, node)
    if link is None:
        return None
    try:
        reason = _link(link, published.data)
    except OSError as error:
        reason = str(error.strerror)
    if reason is None:
        return None
    return f"{link}: no link could be put there ({reason}). The result itself is in {published.data}"


def link_of(pipeline: Pipeline, node: Node) -> Path | None:
    """Where the link to a node's result is, or would be; None for what is not linked."""
    folder = None
    if node.stage.output.exported:
        folder = pipeline.output_dir
    elif issubclass(node.stage.output, TrainingData | PreferenceData):
        folder = pipeline.prepared_path
    return None if folder is None else folder / node.name


def short_path(pipeline: Pipeline, node: Node, published: Published) -> Path:
    """The link to a node's result, seen from the working folder if it lies below; the result where there is no link."""
    link = link_of(pipeline, node)
    if link is None or not link.is_symlink() or link.readlink() != published.data:
        return published.data
    return link.relative_to(Path.cwd()) if link.is_relative_to(Path.cwd()) else link


def _link(link: Path, target: Path) -> str | None:
    """Make the link; returns why not, if what lies there is no link of ours."""
    if link.is_symlink():
        there = link.readlink()
        if there == target:
            return None
        if not names_an_artifact(there):
            return f"a link to {there} is there; move it away, or set another output_dir or dataset_prepared_path"
        beside = link.with_name(f".{uuid.uuid4().hex}")
        beside.symlink_to(target)
        try:
            beside.replace(link)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        return None
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        link.symlink_to(target)
    except FileExistsError:
        kind = "folder" if link.is_dir() else "file"
        return f"a {kind} is there; move it away, or set another output_dir or dataset_prepared_path"
    return None
