"""What is wrong with `pipeline.evaluations` in this graph: models and rows that are not there, names that clash."""

from collections import Counter
from collections.abc import Iterator, Sequence

from tunemill.pipelines.config.document import Document, problem_at
from tunemill.pipelines.config.evaluations import EvaluationEntry
from tunemill.pipelines.config.graph_config import NOT_FOLDED, GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.problems import Problem
from tunemill.pipelines.graph.place import Place
from tunemill.stages.choices import nearest
from tunemill.stages.evaluation.engine_keys import VllmEngine
from tunemill.stages.models.vllm.adapter import PARTS


def evaluation_problems(graph: GraphConfig, places: Sequence[Place], document: Document) -> Iterator[Problem]:
    """Of each entry, at the key that is wrong."""
    names = [evaluation.name for evaluation in graph.evaluations]
    for index, evaluation in enumerate(graph.evaluations):
        entry: KeyPath = ("pipeline", "evaluations", index)
        if evaluation.name in names[:index]:
            message = f"another evaluation is called {evaluation.name} already; give each a name of its own"
            yield problem_at((*entry, "name"), document, "conflict", message)
        elif (taken := _taken(evaluation, entry, places)) is not None:
            message = (
                f"{evaluation.name}: the nodes of this evaluation would be called as others: {taken}. Choose another "
                f"name"
            )
            yield problem_at((*entry, "name"), document, "conflict", message)
        yield from _models(graph, evaluation, entry, document)
        yield from _rows(graph, evaluation, entry, document)
        yield from _engine(graph, evaluation, entry, document)


def _taken(evaluation: EvaluationEntry, entry: KeyPath, places: Sequence[Place]) -> str | None:
    """The first name that two nodes would have, one of them of this entry."""
    counted = Counter(place.name for place in places)
    own = (f"dataset_{evaluation.name}", f"tokenized_{evaluation.name}", f"evaluation_data_{evaluation.name}")
    named = [place.name for place in places if place.entry is not None and place.entry[: len(entry)] == entry]
    names = dict.fromkeys([*(own if evaluation.data is not None else ()), *named])
    return next((name for name in names if counted[name] > 1), None)


def _models(
    graph: GraphConfig, evaluation: EvaluationEntry, entry: KeyPath, document: Document
) -> Iterator[Problem]:
    if graph.draws_head:
        message = f"{graph.asked_method}: the model scores, and writes no answers. Take this evaluation out"
        yield problem_at((*entry, "name"), document, "conflict", message)
        return
    asked = evaluation.on or []
    there = list(models_of(graph))
    exports = [what for what in there if what not in ("base", "trained", "merged", "quantized")]
    for number, what in enumerate(asked):
        place = (*entry, "on", number)
        if what in asked[:number]:
            yield problem_at(place, document, "conflict", f"{what} stands here twice; take one out")
        elif what not in there and not (what == "exported" and exports):
            near = nearest(what, there)
            yield problem_at(
                place, document, "value", _why_absent(what, there, graph), near[0] if near else None
            )


def _why_absent(what: str, there: Sequence[str], graph: GraphConfig) -> str:
    """Why a model is not there, and what to write."""
    reasons = {
        "merged": "there is no merged model without `adapter`"
        if graph.adapter is None
        else f"there is no merged model: {NOT_FOLDED}",
        "quantized": "there is no quantized model without `quantization` or `qat`",
        "exported": "there is no exported model: pipeline.export asks for none",
    }
    return f"{reasons.get(what, f'there is no model {what}')}; there is {', '.join(there)}"


def models_of(graph: GraphConfig) -> Iterator[str]:
    """The models of a pipeline that can answer, by the names that evaluations call them by."""
    yield "base"
    yield "trained"
    if graph.merges:
        yield "merged"
    if graph.quantizes:
        yield "quantized"
    yield from (export.node for export in graph.export if export.of == "model")


def _rows(
    graph: GraphConfig, evaluation: EvaluationEntry, entry: KeyPath, document: Document
) -> Iterator[Problem]:
    if evaluation.data is not None or evaluation.task is not None:
        return
    if graph.learns_preferences or (graph.learns_online and graph.held_out):
        held_out = "prompts without answers" if graph.learns_online else "pairs or judged answers"
        message = (
            f"{graph.asked_method}: the held-out rows are {held_out}, and no questions. Give `data`, an entry as under "
            f"test_datasets"
        )
    elif not graph.held_out:
        message = "there are no rows to evaluate on; give `data`, `test_datasets` or `val_set_size`"
    else:
        return
    yield problem_at((*entry, "name"), document, "conflict", message)


def _engine(
    graph: GraphConfig, evaluation: EvaluationEntry, entry: KeyPath, document: Document
) -> Iterator[Problem]:
    """Models that vLLM cannot take: adapters beside a base that are no plain LoRA, and GGUF files."""
    if not isinstance(evaluation.engine, VllmEngine):
        return
    asked = evaluation.on or list(models_of(graph))
    reason = _no_lora(graph, document)
    if "trained" in asked and reason is not None:
        yield problem_at((*entry, "engine"), document, "conflict", reason)
    files = [one.node for one in graph.export if one.format == "gguf" and {one.node, "exported"} & {*asked}]
    if files:
        message = f"vLLM is not asked for GGUF files here, and {files[0]} is one. Name other models in `on`"
        yield problem_at((*entry, "engine"), document, "conflict", message)


def _no_lora(graph: GraphConfig, document: Document) -> str | None:
    """Why vLLM cannot take the trained adapter beside its base."""
    if graph.adapter is None:
        return None
    part = next((key for key in PARTS.values() if document.data.get(key)), None)
    if graph.adapter in ("lora", "qlora") and part is None:
        return None
    what = f"adapter: {graph.adapter}" if part is None else part
    instead = "merged, in place of trained" if graph.merges else "other models"
    return f"vLLM takes LoRA alone beside a base, and none with {what}. Name {instead} in `on`, or take engine out"
