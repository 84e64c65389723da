"""`pipeline.sweep_settings` in these graphs: which node judges a point, and whether halving finds what it needs."""

from collections.abc import Iterator, Sequence
from math import gcd

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.overrides import Override, override_of
from tunemill.pipelines.config.problems import ConfigError, Problem
from tunemill.pipelines.config.slices import cut, validate
from tunemill.pipelines.config.sweep_keys import SETTINGS, SweepKeys, SweepSettings
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.resources.protocols import HELD_OUT_LOSS
from tunemill.stages.artifacts import EvaluationReport, PublishedModel
from tunemill.stages.choices import nearest
from tunemill.stages.evaluation.gate import NAMED, SPEAKING, evaluation_node

# The keys that say when training saves and when it scores held-out rows: the one in steps, and the others.
RHYTHMS = (
    ("save_steps", ("saves_per_epoch", "save_strategy")),
    ("eval_steps", ("evals_per_epoch", "eval_strategy")),
)


def settings_of(document: Document) -> SweepSettings:
    """How the points are judged. Raises ConfigError for settings that are wrong in themselves."""
    found = validate(SweepKeys, cut(SweepKeys, document), document)
    if isinstance(found, list):
        raise ConfigError(document.path, [*document.problems, *found])
    assert isinstance(found, SweepKeys)
    return found.sweep_settings or SweepSettings()


def judging(pipeline: Pipeline, settings: SweepSettings) -> Node | None:
    """The node whose figures judge a point: an evaluation, or else the training; None where there is none of these."""
    evaluated = {node.name: node for node in _evaluations(pipeline)}
    wanted = SPEAKING if settings.of is None else (settings.of,)
    names = [evaluation_node(model, settings.evaluation) for model in wanted]
    found = next((evaluated[name] for name in names if name in evaluated), None)
    asks_for_one = settings.of is not None or settings.evaluation is not None
    return found if found is not None or asks_for_one else training_of(pipeline)


def training_of(pipeline: Pipeline) -> Node | None:
    """The node that trains, and can go on from what an interrupted attempt has left."""
    return next((node for node in pipeline.nodes if node.stage.tracked and node.stage.resumes_from), None)


def swept_nodes(pipeline: Pipeline) -> list[Node]:
    """The nodes that a sweep brings up to date: all but those that send a model somewhere.

    Points would be published one over the other.
    """
    return [node for node in pipeline.nodes if not issubclass(node.stage.output, PublishedModel)]


def settings_problems(
    settings: SweepSettings, pipelines: Sequence[Pipeline], document: Document
) -> Iterator[Problem]:
    """Settings about models, figures and steps that the points do not have."""
    found: list[Problem] = []
    for pipeline in pipelines:
        found += _of_metric(settings, pipeline, document)
        if settings.rungs:
            found += _of_rungs(settings, pipeline, document)
    if any(len(pipeline.nodes) > len(swept_nodes(pipeline)) for pipeline in pipelines):
        message = (
            "asks for nothing in `tunemill sweep`: one point would be published over another. Publish the best: "
            "`tunemill run` with --point NAME"
        )
        place: KeyPath = (
            ("pipeline", "publish") if ("pipeline", "publish") in document.keys else ("hub_model_id",)
        )
        found.append(problem_at(place, document, "idle", message))
    yield from dict.fromkeys(found)


def _of_metric(settings: SweepSettings, pipeline: Pipeline, document: Document) -> Iterator[Problem]:
    node = judging(pipeline, settings)
    if node is None and (settings.of or settings.evaluation):
        there = [name.name for name in _evaluations(pipeline)]
        asked = evaluation_node(settings.of or SPEAKING[0], settings.evaluation)
        key = "of" if settings.of else NAMED
        message = f"there is no node {asked} that could judge a point; there are {', '.join(there) or 'none'}"
        yield problem_at((*SETTINGS, key), document, "value", message)
    known = None if node is None else node.config.written_metrics()
    if node is not None and known is not None and settings.metric not in (None, *known):
        near = nearest(str(settings.metric), sorted(known))
        message = f"{settings.metric} is no figure of {node.name}, which computes {', '.join(sorted(known))}"
        yield problem_at((*SETTINGS, "metric"), document, "value", message, near[0] if near else None)


def _of_rungs(settings: SweepSettings, pipeline: Pipeline, document: Document) -> Iterator[Problem]:
    place = (*SETTINGS, "rungs")
    node = training_of(pipeline)
    if node is None:
        yield problem_at(place, document, "value", "nothing is trained here that could be stopped at a step")
        return
    if not getattr(node.config, "has_held_out_rows", False):
        message = "what goes on at a rung is said by the loss of held-out rows, and there are none. Give test_datasets "
        yield problem_at(place, document, "value", f"{message}or val_set_size, or take rungs out")
    elif HELD_OUT_LOSS not in getattr(node.config, "figures", (HELD_OUT_LOSS,)):
        message = (
            f"what goes on at a rung is said by the loss of held-out rows, and {node.stage.name} has rewards"
        )
        yield problem_at(place, document, "value", f"{message} in its place. Take rungs out")
    last = getattr(node.config, "max_steps", None)
    if last is not None and settings.rungs[-1] >= last:
        message = (
            f"the training has {last} steps, so that nothing is saved by stopping at {settings.rungs[-1]}"
        )
        yield problem_at(place, document, "value", f"{message}. Give earlier steps")
    deciding = node.config.deciding()
    for key, others in RHYTHMS:
        if key in deciding and getattr(node.config, key, None) is None:
            message = f"held-out rows decide the result here, so {key} is part of it. Write it, so that rungs are met"
            yield problem_at(place, document, "value", message)
            continue
        given = next((other for other in others if getattr(node.config, other, None) is not None), None)
        steps = getattr(node.config, key, None)
        if given is not None:
            message = f"rungs are steps, so {key} must say when, not {given}. Write {key}, or take both out"
            yield problem_at((given,), document, "conflict", message)
        elif steps and (steps < 1 or any(rung % steps for rung in settings.rungs)):
            message = (
                f"{steps:g} leads to no step of pipeline.sweep_settings.rungs; each must be a multiple of it"
            )
            yield problem_at((key,), document, "conflict", message)


def rung_overrides(settings: SweepSettings, document: Document) -> list[Override]:
    """What a training needs to stop at the rungs, where the YAML does not say it: neither changes a result."""
    if not settings.rungs:
        return []
    common = gcd(*settings.rungs)
    return [override_of(f"{key}={common}") for key, _ in RHYTHMS if not document.data.get(key)]


def _evaluations(pipeline: Pipeline) -> list[Node]:
    return [node for node in pipeline.nodes if issubclass(node.stage.output, EvaluationReport)]
