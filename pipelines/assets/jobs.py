"""Ready-made jobs of a pipeline, as the UI lists them: bring it up to date, evaluate alone, compute again."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from tunemill.pipelines.assets.again import AGAIN, SELECTED
from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.graph.evaluation_nodes import EVALUATES, evaluates, evaluation_nodes
from tunemill.pipelines.graph.nodes import Pipeline

PIPELINE = "tunemill/pipeline"
ASKED_BY = "tunemill/asked_by"
# Each job takes Dagster 10 to 40 ms of every load, and a pipeline has four. What they do, a selection does too.
JOBS_UP_TO = 20


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
                {AGAIN: ",".join(node.name for node in pipeline.nodes if evaluates(node))},
            ),
        ]
    return jobs


def what_to_press(pipeline: Pipeline, count: int) -> str:
    """What can be started of a pipeline that is one of so many, in Markdown: its jobs, or what to select instead."""
    name, evaluations = pipeline.name, evaluation_nodes(pipeline)
    if count <= JOBS_UP_TO:
        lines = [f"`{bring_up_to_date_name(name)}` computes what is not in place"]
        if evaluations:
            lines.append(f"`{name}_evaluate` evaluates the models as they are, and trains nothing")
            lines.append(f"`{name}_evaluate_again` does so although nothing has changed")
        lines.append(f"`{name}_compute_again` computes all of it once more")
        return "\n".join(f"- {line}" for line in lines)
    selections = {"everything that is not in place": f'group:"{name}"'}
    if evaluations:
        selections["the evaluations alone"] = f'group:"{name}" and tag:"{EVALUATES}"'
    why = (
        f"There are {count} pipelines here. With more than {JOBS_UP_TO} there are no jobs but those that a schedule, a "
        f"watcher or a sweep needs, because each makes every reload slower. Select in the asset graph, and press "
        f"Materialize; with the tag `{AGAIN}: {SELECTED}` what is in place is computed again too."
    )
    return "\n".join([f"{why}\n", *(f"- {words}: `{selection}`" for words, selection in selections.items())])


def _job(
    pipeline: Pipeline, name: str, nodes: list[str], description: str, tags: dict[str, str] | None = None
) -> UnresolvedAssetJobDefinition:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*(asset_key(pipeline.name, node) for node in nodes)),
        description=description,
        run_tags={PIPELINE: pipeline.name, **(tags or {})},
    )
