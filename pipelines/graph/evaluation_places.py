"""The nodes that evaluate models: part of the graph's table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from tunemill.pipelines.config.evaluations import EvaluationEntry
from tunemill.pipelines.config.graph_config import GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.graph.place import Place, reading
from tunemill.stages.artifacts import StudentReport
from tunemill.stages.declaration import Stage
from tunemill.stages.evaluation.generations.stage import GENERATIONS
from tunemill.stages.evaluation.held_out_loss.stage import HELD_OUT_LOSS
from tunemill.stages.evaluation.inspect_keys import is_inspect
from tunemill.stages.evaluation.inspect_task.stage import INSPECT_EVALUATION
from tunemill.stages.evaluation.judgements.stage import JUDGEMENTS
from tunemill.stages.evaluation.named_task.stage import TASK_EVALUATION
from tunemill.stages.evaluation.scores.stage import SCORES
from tunemill.stages.named import EVALUATIONS


@dataclass(frozen=True)
class Evaluated:
    """A model that can be evaluated: the inputs that it is made of, and what stores it if it is quantized."""

    inputs: Mapping[str, tuple[str, ...]]
    stored_by: tuple[Stage, ...] = ()


def evaluation_places(
    graph: GraphConfig, models: Mapping[str, Evaluated], beside: Mapping[str, tuple[str, ...]]
) -> Iterator[Place]:
    """The nodes that score models on the held-out rows, each with those of its inputs that its stage asks for.

    `beside` are inputs that are the same for each.
    """
    if not graph.evaluates:
        return
    stage = EVALUATIONS[graph.method]
    if graph.teacher is not None:
        stage = replace(stage, output=StudentReport)
    asked = set(models if graph.evaluate is None else graph.evaluate)
    exported = {export.node for export in graph.export}
    for what, model in models.items():
        if what not in asked and not (what in exported and "exported" in asked):
            continue
        given = {**model.inputs, "evaluation_data": ("evaluation_data",), **beside}
        inputs = {name: upstream for name, upstream in given.items() if name in stage.inputs}
        yield Place(f"evaluation_of_{what}", reading(stage, *model.stored_by), inputs, about=what)


def named_evaluation_places(graph: GraphConfig, models: Mapping[str, Evaluated]) -> Iterator[Place]:
    """The nodes of `pipeline.evaluations`: of each entry, for each of its models."""
    for index, evaluation in enumerate(graph.evaluations):
        entry: KeyPath = ("pipeline", "evaluations", index)
        for what in evaluated_by(evaluation, graph, models):
            yield from places_of(evaluation, entry, what, models[what])


def evaluated_by(
    evaluation: EvaluationEntry, graph: GraphConfig, models: Mapping[str, Evaluated]
) -> Iterator[str]:
    """Which of the models an evaluation is of; those that it names and that are not there are passed over."""
    exported = {export.node for export in graph.export}
    for what in models:
        named = evaluation.on is None or what in evaluation.on
        if named or (what in exported and "exported" in (evaluation.on or ())):
            yield what


def places_of(evaluation: EvaluationEntry, entry: KeyPath, what: str, model: Evaluated) -> Iterator[Place]:
    """The nodes of one evaluation of one model: what it answers, what a judge says of that, and the scores."""
    name = f"{evaluation.name}_of_{what}"
    data = {**model.inputs, "evaluation_data": (evaluation.rows,)}

    def asking(stage: Stage) -> tuple[Stage, dict[str, tuple[str, ...]]]:
        return reading(stage, *model.stored_by), {key: data[key] for key in stage.inputs if key in data}

    if evaluation.task is not None:
        stage = INSPECT_EVALUATION if is_inspect(evaluation.task) else TASK_EVALUATION
        yield Place(f"evaluation_{name}", *asking(stage), entry, about=what)
        return
    if not evaluation.generates:
        yield Place(f"evaluation_{name}", *asking(HELD_OUT_LOSS), entry, about=what)
        return
    answers = {"generations": (f"generations_{name}",)}
    yield Place(f"generations_{name}", *asking(GENERATIONS), entry, about=what)
    if evaluation.judge is not None:
        yield Place(f"judgements_{name}", JUDGEMENTS, answers, (*entry, "judge"), about=what)
        answers = {**answers, "judgements": (f"judgements_{name}",)}
    grouped = {"dataset": (f"dataset_{evaluation.name}",), "evaluation_data": (evaluation.rows,)}
    inputs = {**answers, **(grouped if evaluation.group is not None else {})}
    yield Place(f"evaluation_{name}", SCORES, inputs, entry, about=what)
