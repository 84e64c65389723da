"""Ready-made jobs of a pipeline, as the UI lists them: bring it up to date, evaluate alone, compute again."""

from collections.abc import Callable, Iterable

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from tunemill.pipelines.assets.again import AGAIN, SELECTED
from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.verb_places import VERBS

PIPELINE = "tunemill/pipeline"
ASKED_BY = "tunemill/asked_by"


def bring_up_to_date_name(pipeline: str) -> str:
    """The job that schedules and sensors start too."""
    return f"{pipeline}_bring_up_to_date"


def build_jobs(pipeline: Pipeline) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of one pipeline."""
    name = pipeline.name
    everything = [node.name for node in pipeline.nodes]
    jobs = [
        _job(
            pipeline,
            bring_up_to_date_name(name),
            everything,
            f"Bring `{name}` up to date: what is in place is found in the store, which takes no device; what changed "
            f"is computed, with all that depends on it.",
        ),
        _job(
            pipeline,
            f"{name}_compute_again",
            everything,
            f"Compute every stage of `{name}` again, whether it is in place or not. This trains. For single stages, "
            f"select them in the graph and materialize them with the tag `{AGAIN}: {SELECTED}`, or start this job with "
            f"the tag set to their names, as `--refresh` takes them.",
            {AGAIN: SELECTED},
        ),
    ]
    evaluations = evaluation_nodes(pipeline)
    if evaluations:
        jobs += [
            _job(
                pipeline,
                f"{name}_evaluate",
                evaluations,
                f"Evaluate the models of `{name}` as they are, with the evaluation's settings and rows as they are "
                f"written now. Nothing is trained, merged or quantized.",
            ),
            _job(
                pipeline,
                f"{name}_evaluate_again",
                evaluations,
                f"Evaluate the models of `{name}` once more although nothing has changed.",
                {AGAIN: ",".join(node.name for node in pipeline.nodes if _evaluates(node))},
            ),
        ]
    return jobs


def evaluation_nodes(pipeline: Pipeline) -> list[str]:
    """The evaluations, and the data that are prepared for them, in an order in which they can run.

    Data that a model is made from too are taken as they are: to prepare them anew would say of the model's rows what
    they were not when it was trained.
    """
    nodes = {node.name: node for node in pipeline.nodes}
    evaluations = {node.name for node in pipeline.nodes if _evaluates(node)}
    found = _upstream(nodes, evaluations, lambda node: _evaluates(node) or node.stage.prepares_data)
    models = {node.name for node in pipeline.nodes if not (_evaluates(node) or node.stage.prepares_data)}
    for_models = _upstream(nodes, {up for name in models for up in upstream_of(nodes[name])}, lambda _: True)
    return [name for name in nodes if name in found and (name in evaluations or name not in for_models)]


def _upstream(nodes: dict[str, Node], names: Iterable[str], takes: Callable[[Node], bool]) -> set[str]:
    """These nodes and what is before them, as far as it is taken."""
    found: set[str] = set()
    pending = [name for name in names if not name.startswith(ASSET_SCHEME) and takes(nodes[name])]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            ups = [up for up in upstream_of(nodes[name]) if not up.startswith(ASSET_SCHEME)]
            pending += [up for up in ups if takes(nodes[up])]
    return found


def _evaluates(node: Node) -> bool:
    return VERBS["evaluate"].means(node)


def _job(
    pipeline: Pipeline, name: str, nodes: list[str], description: str, tags: dict[str, str] | None = None
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(asset_key(pipeline.name, node) for node in nodes)),
        description=description,
        run_tags={PIPELINE: pipeline.name, **(tags or {})},
    )
