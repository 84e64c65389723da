"""The nodes that score models on tasks of lm-evaluation-harness: part of the graph's table."""

from collections.abc import Iterator, Mapping

from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.evaluation_places import Evaluated
from tunemill.pipelines.graph.place import Place, reading
from tunemill.resources.protocols import HUB_MODELS
from tunemill.stages.evaluation.lm_eval_tasks.stage import HARNESS_EVALUATION

# The node that fetches `lm_eval_model` from the Hub.
LM_EVAL_FILES = "lm_eval_files"
# What `lm_eval_model` is called in the name of its node.
GIVEN = "given"


def harness_places(graph: GraphConfig, models: Mapping[str, Evaluated]) -> Iterator[Place]:
    """A node for each model that is scored on `lm_eval_tasks`: `lm_eval_model`, or else those of the pipeline."""
    if not graph.lm_eval_tasks or graph.evaluate == []:
        return
    if graph.lm_eval_model is not None:
        yield Place(f"evaluation_lm_eval_of_{GIVEN}", HARNESS_EVALUATION, given_model(graph), about=GIVEN)
        return
    asked = set(models if graph.evaluate is None else graph.evaluate)
    exported = {export.node for export in graph.export}
    for what, model in models.items():
        is_asked = what in asked or (what in exported and "exported" in asked)
        if not is_asked or (graph.lm_eval_post_train is False and what != "base"):
            continue
        inputs = {
            name: upstream for name, upstream in model.inputs.items() if name in HARNESS_EVALUATION.inputs
        }
        stage = reading(HARNESS_EVALUATION, *model.stored_by)
        yield Place(f"evaluation_lm_eval_of_{what}", stage, inputs, about=what)


def given_model(graph: GraphConfig) -> dict[str, tuple[str, ...]]:
    """The input that is `lm_eval_model`; none where it is a local folder, which the stage reads by itself."""
    name = graph.lm_eval_model or ""
    if name.startswith(HUB_MODELS):
        name = LM_EVAL_FILES
    return {"model": (name,)} if name.startswith(ASSET_SCHEME) or name == LM_EVAL_FILES else {}
