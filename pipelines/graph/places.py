"""Which nodes a pipeline has, and their edges: the graph's table.

The nodes that evaluate are in `evaluation_places.py` and `harness_places.py`, that of what is given away in
`published_places.py`, and what verbs mean in `verb_places.py`. No other file of the pipeline lists stages.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.graph_config import SYNTHETIC_TYPE, GraphConfig
from tunemill.pipelines.config.key_paths import KeyPath
from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.evaluation_places import Evaluated, evaluation_places, named_evaluation_places
from tunemill.pipelines.graph.harness_places import LM_EVAL_FILES, harness_places
from tunemill.pipelines.graph.place import Place, reading
from tunemill.pipelines.graph.published_places import published_places
from tunemill.resources.local import LONGEST_NAME, short_name
from tunemill.resources.protocols import HUB_MODELS, without_credentials
from tunemill.stages.artifacts import (
    Adapter,
    Artifact,
    EvaluationData,
    FetchedAdapter,
    FetchedModel,
    PreferenceData,
    Tokenizer,
)
from tunemill.stages.data.dataset.stage import DATASET
from tunemill.stages.data.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.data.held_out_preferences.stage import HELD_OUT_PREFERENCES
from tunemill.stages.data.leakage.stage import LEAKAGE
from tunemill.stages.data.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.data.preferences.stage import PREFERENCES
from tunemill.stages.data.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.data.prompt_data.stage import PROMPT_DATA
from tunemill.stages.data.prompts.stage import PROMPTS
from tunemill.stages.data.stored_logprobs.stage import STORED_LOGPROBS
from tunemill.stages.data.synthetic.stage import SYNTHETIC
from tunemill.stages.data.tokenized.stage import TOKENIZED
from tunemill.stages.data.tokenizer.stage import TOKENIZER
from tunemill.stages.data.training_data.stage import TRAINING_DATA
from tunemill.stages.declaration import Input, Stage
from tunemill.stages.models.base_model.stage import BASE_MODEL
from tunemill.stages.models.exported_compressed.stage import EXPORTED_COMPRESSED
from tunemill.stages.models.exported_gguf.stage import EXPORTED_GGUF
from tunemill.stages.models.hub_files.stage import HUB_FILES
from tunemill.stages.models.merged.stage import MERGED
from tunemill.stages.models.quantized.stage import QUANTIZED
from tunemill.stages.models.quantized_base.stage import QUANTIZED_BASE
from tunemill.stages.models.teacher import TEACHER
from tunemill.stages.named import method
from tunemill.stages.training.online.reward_keys import asset_models
from tunemill.stages.training.reference_logprobs.stage import REFERENCE_LOGPROBS
from tunemill.stages.training.teacher_logprobs.stage import TEACHER_LOGPROBS

# The nodes of what a model is compared with, and the data that each is of.
REFERENCES = {"reference_logprobs": "training_data", "held_out_logprobs": "evaluation_data"}

# What writes the files of a format of `pipeline.export`.
EXPORTS: Mapping[str, Stage] = {"gguf": EXPORTED_GGUF, "compressed-tensors": EXPORTED_COMPRESSED}


def places(graph: GraphConfig) -> list[Place]:
    """Every node with its edges, in an order in which they can run."""
    upstream = {"upstream": (graph.base_model,)} if graph.base_model.startswith(ASSET_SCHEME) else {}
    found = []
    tokenizer: Mapping[str, tuple[str, ...]] = upstream
    if graph.tokenizer_source.startswith(HUB_MODELS):
        key = "base_model" if graph.tokenizer_config is None else "tokenizer_config"
        found.append(hub_place("tokenizer_files", graph, key, graph.tokenizer_source, "tokenizer", Tokenizer))
        tokenizer = {"tokenizer_files": ("tokenizer_files",)}
    found.append(Place("tokenizer", TOKENIZER, tokenizer))
    found += data_places(graph)
    if graph.base_model.startswith(HUB_MODELS):
        found.append(hub_place("model_files", graph, "base_model", graph.base_model, "model", FetchedModel))
        upstream = {"upstream": ("model_files",)}
    config_source = graph.base_model_config or ""
    if config_source.startswith(HUB_MODELS):
        found.append(
            hub_place("config_files", graph, "base_model_config", config_source, "config", FetchedModel)
        )
        upstream = {**upstream, "config_files": ("config_files",)}
    found += model_places(graph, upstream)
    return [*found, *published_places(graph, found)]


def hub_place(
    name: str, graph: GraphConfig, key: str, repository: str, what: str, output: type[Artifact]
) -> Place:
    """The node that fetches files of the repository that `key` names: those of a model, a tokenizer or an adapter.

    `revision_of_model` is one of `base_model`, and so of whatever else is taken from the same repository.
    """
    revision = graph.revision_of_model if repository == graph.base_model else None
    given = {"repository": repository, "needed": what, "revision": revision}
    named_by: dict[str, KeyPath] = {"repository": tuple(key.split(".")), "revision": ("revision_of_model",)}
    return Place(name, replace(HUB_FILES, output=output), {}, given=given, named_by=named_by)


def data_places(graph: GraphConfig) -> list[Place]:
    """The nodes from the sources to training data and held-out rows."""
    lists = {"datasets": graph.datasets, "test_datasets": graph.test_datasets}
    found: list[Place] = []
    names = iter(unique_names([entry for entries in lists.values() for entry in entries]))
    prepared: dict[str, tuple[str, ...]] = {}
    for group, entries in lists.items():
        rows = [
            row_places(
                next(names),
                (group, index),
                entries[index],
                rows_stage(graph),
                answered=graph.compares_answers,
                asked=graph.asks_prompts,
            )
            for index in range(len(entries))
        ]
        found += [place for places in rows for place in places]
        prepared[group] = tuple(places[-1].name for places in rows)
    if graph.pretraining_dataset:
        inputs = {"tokenizer": ("tokenizer",)}
        found.append(Place("training_data", PRETRAINING_DATA, inputs, ("pretraining_dataset", 0)))
    else:
        online = PROMPT_DATA if graph.learns_online else TRAINING_DATA
        stage = PREFERENCE_DATA if graph.learns_preferences else online
        given = {"keeps_sources": graph.stored_teacher}
        found.append(Place("training_data", stage, {"tokenized": prepared["datasets"]}, given=given))
    if graph.stored_teacher:
        found += stored_logprobs_places(graph)
    found += held_out_places(graph, prepared["test_datasets"])
    found += own_row_places(graph)
    return [*found, *leakage_places(graph, found)]


def leakage_places(graph: GraphConfig, found: Sequence[Place]) -> Iterator[Place]:
    """The nodes that look for held-out rows among those that are trained on: one for each node of such rows."""
    held_out = "evaluation_data"
    looks = graph.leakage is not False and not graph.pretraining_dataset and not graph.learns_online
    rows: type[Artifact] = EvaluationData
    stage = LEAKAGE
    if graph.learns_preferences:
        # Pairs are compared with pairs.
        both = dict.fromkeys(("training_data", held_out), Input(PreferenceData))
        rows, stage = PreferenceData, replace(LEAKAGE, inputs={**LEAKAGE.inputs, **both})
    for place in found if looks else ():
        if place.stage.output is rows and place.name.startswith(held_out):
            inputs = {**{name: (name,) for name in stage.inputs}, held_out: (place.name,)}
            yield Place(f"leakage{place.name.removeprefix(held_out)}", stage, inputs)


def rows_stage(graph: GraphConfig) -> Stage:
    """What prepares the rows of a dataset that is trained on."""
    if graph.learns_online:
        return PROMPTS
    return PREFERENCES if graph.learns_preferences else TOKENIZED


def row_places(
    name: str,
    entry: KeyPath,
    settings: Mapping[str, Any],
    stage: Stage,
    *,
    answered: bool = False,
    asked: bool = False,
) -> list[Place]:
    """The nodes of one dataset entry; the last one holds its prepared rows.

    `answered`: each row needs an answer; `asked`: each needs a prompt.
    """
    tokenizer = {"tokenizer": ("tokenizer",)}
    given = {
        "held_out": entry[0] != "datasets",
        "today": date.today().isoformat(),
        "needs_answer": answered,
        "needs_prompt": asked,
    }
    if settings.get("type") == SYNTHETIC_TYPE:
        return [Place(f"tokenized_{name}", SYNTHETIC, tokenizer, entry, given, name)]
    inputs = {"dataset": (f"dataset_{name}",), **tokenizer}
    return [
        Place(f"dataset_{name}", DATASET, {}, entry, given, name),
        Place(f"tokenized_{name}", stage, inputs, entry, given, name),
    ]


def stored_logprobs_places(graph: GraphConfig) -> Iterator[Place]:
    """The nodes that read a teacher's log-probabilities out of the rows of the datasets, one for each."""
    names = unique_names([*graph.datasets, *graph.test_datasets])
    for index, name in enumerate(names[: len(graph.datasets)]):
        inputs = {
            "dataset": (f"dataset_{name}",),
            "tokenized": (f"tokenized_{name}",),
            "tokenizer": ("tokenizer",),
        }
        yield Place(f"logprobs_{name}", STORED_LOGPROBS, inputs, ("datasets", index), about=name)


def teacher_places(graph: GraphConfig) -> Iterator[Place]:
    """The nodes that run a teacher over the rows that are trained on, if there is one."""
    if graph.teacher is None:
        return
    if graph.teacher.startswith(HUB_MODELS):
        yield hub_place("teacher_files", graph, TEACHER, graph.teacher, "model", FetchedModel)
    inputs = {"tokenizer": ("tokenizer",), "training_data": ("training_data",), **teacher_model(graph)}
    yield Place("teacher_logprobs", TEACHER_LOGPROBS, inputs)


def reward_models(graph: GraphConfig) -> dict[str, tuple[str, ...]]:
    """The input that are reward models of other pipelines; none where no reward is one."""
    named = tuple(asset_models(graph.reward_funcs))
    return {"reward_models": named} if named else {}


def teacher_model(graph: GraphConfig) -> dict[str, tuple[str, ...]]:
    """The input that is the teacher; none where it is a local folder, which the stages read by themselves."""
    name = graph.teacher or ""
    if name.startswith(HUB_MODELS):
        name = "teacher_files"
    elif not name.startswith(ASSET_SCHEME):
        return {}
    return {"teacher_model": (name,)}


def held_out_places(graph: GraphConfig, tokenized: tuple[str, ...]) -> list[Place]:
    """The node of the rows that are never trained on, if there are any."""
    training_data = {"training_data": ("training_data",)}
    if tokenized and (graph.learns_preferences or graph.learns_online):
        stage = PREFERENCE_DATA if graph.learns_preferences else PROMPT_DATA
        return [Place("evaluation_data", stage, {"tokenized": tokenized})]
    if tokenized:
        compares = graph.dataset_exact_deduplication or graph.data_report == "full"
        inputs = {"tokenized": tokenized, **(training_data if compares else {})}
        return [Place("evaluation_data", EVALUATION_DATA, inputs)]
    if graph.holds_texts_out:
        return [Place("evaluation_data", EVALUATION_DATA, training_data)]
    # Training finds what `val_set_size` holds out of preferences and prompts beside the rows that it reads.
    if graph.learns_preferences and (graph.evaluates or (graph.held_out and graph.leakage == "fail")):
        return [Place("evaluation_data", HELD_OUT_PREFERENCES, training_data)]
    return []


def own_row_places(graph: GraphConfig) -> Iterator[Place]:
    """The nodes of the rows that evaluations have for themselves."""
    for index, evaluation in enumerate(graph.evaluations):
        if evaluation.data is not None:
            entry: KeyPath = ("pipeline", "evaluations", index, "data")
            rows = row_places(evaluation.name, entry, evaluation.data, TOKENIZED)
            yield from rows
            inputs = {"tokenized": (rows[-1].name,)}
            given = {"named": evaluation.name, "keeps_sources": True}
            yield Place(evaluation.rows, EVALUATION_DATA, inputs, given=given, about=evaluation.name)


def model_places(graph: GraphConfig, upstream: Mapping[str, tuple[str, ...]]) -> list[Place]:
    """The nodes from the base model on."""
    found = [Place("base_model", BASE_MODEL, {"tokenizer": ("tokenizer",), **upstream})]
    trains = method(graph.method)
    has_held_out_node = graph.holds_texts_out or bool(graph.test_datasets)
    held_out = {"evaluation_data": ("evaluation_data",)} if has_held_out_node else {}
    given: dict[str, Any] = {"has_held_out_rows": graph.held_out}
    frozen = "quantized_base" if graph.quantizes_base else "base_model"
    if graph.quantizes_base:
        found.append(Place("quantized_base", QUANTIZED_BASE, {"base_model": ("base_model",)}))
        trains = reading(trains, QUANTIZED_BASE)
    inputs: dict[str, tuple[str, ...]] = {
        "base_model": (frozen,),
        "training_data": ("training_data",),
        **held_out,
        **reward_models(graph),
    }
    if graph.distills:
        found += teacher_places(graph)
        stored = tuple(place.name for place in stored_logprobs_places(graph))
        inputs["teacher_logprobs"] = ("teacher_logprobs",) if graph.teacher else stored
    if graph.base_model.startswith(HUB_MODELS):
        given["base_on_hub"] = graph.base_model.removeprefix(HUB_MODELS)
    if graph.adapter_from is not None:
        given["has_stored_adapter"] = True
        inputs["stored_adapter"] = (graph.adapter_from,)
        if graph.adapter_from.startswith(HUB_MODELS):
            found.append(
                hub_place(
                    "adapter_files", graph, "lora_model_dir", graph.adapter_from, "adapter", FetchedAdapter
                )
            )
            inputs["stored_adapter"] = ("adapter_files",)
    # An adapter can be switched off, and the base is what others are compared with.
    reference = {"reference": ("base_model",)}
    if "reference_logprobs" in trains.inputs and graph.stores_reference:
        references = reference_places(graph, inputs, given)
        found += references
        inputs |= {place.name: (place.name,) for place in references}
    models: dict[str, Evaluated] = {}
    if not graph.draws_head:
        models["base"] = Evaluated({"model": ("base_model",)})
    if graph.adapter is None:
        found.append(Place("trained", trains, inputs, given=given))
        models["trained"] = Evaluated({"model": ("trained",), **reference})
    else:
        found.append(Place("trained", replace(trains, output=Adapter), inputs, given=given))
        stored_by = (QUANTIZED_BASE,) if graph.quantizes_base else ()
        models["trained"] = Evaluated({"model": (frozen,), "adapter": ("trained",)}, stored_by)
        if graph.merges:
            found.append(merged_place(graph))
            models["merged"] = Evaluated({"model": ("merged",), **reference})
    if graph.quantizes:
        full = "trained" if graph.adapter is None else "merged"
        compared = held_out if graph.holds_texts_out else {}
        found.append(Place("quantized", QUANTIZED, {"model": (full,), **compared}))
        models["quantized"] = Evaluated({"model": ("quantized",), **reference}, (QUANTIZED,))
    exports = list(export_places(graph))
    found += exports
    models |= {
        place.name: Evaluated({"model": (place.name,), **reference}, (place.stage,))
        for place in exports
        if "adapter" not in place.inputs
    }
    harness, scored = list(harness_places(graph, models)), graph.lm_eval_model or ""
    if harness and scored.startswith(HUB_MODELS):
        found.append(hub_place(LM_EVAL_FILES, graph, "lm_eval_model", scored, "model", FetchedModel))
    return [
        *found,
        *evaluation_places(graph, models, teacher_model(graph)),
        *named_evaluation_places(graph, models),
        *harness,
    ]


def export_places(graph: GraphConfig) -> Iterator[Place]:
    """The nodes that write the finished model, or its adapter, for other engines."""
    whole = {"model": ("trained" if graph.adapter is None else "merged",)}
    beside = {"model": ("base_model",), "adapter": ("trained",)}
    data = {
        "training_data": ("training_data",),
        **({"evaluation_data": ("evaluation_data",)} if graph.holds_texts_out else {}),
    }
    for index, export in enumerate(graph.export):
        given = export.model_dump(exclude={"format"})
        key: KeyPath = ("pipeline", "export", index)
        stage = EXPORTS[export.format]
        looked_at = {
            name: node
            for name, node in data.items()
            if name in stage.inputs and (name != "training_data" or export.calibrated)
        }
        yield Place(
            export.node,
            stage,
            {**(beside if export.of == "adapter" else whole), **looked_at},
            given=given,
            about=export.node,
            named_by={field: (*key, field) if field in export.model_fields_set else key for field in given},
        )


def reference_places(
    graph: GraphConfig, inputs: Mapping[str, tuple[str, ...]], given: Mapping[str, Any]
) -> list[Place]:
    """The nodes of what a training compares its model with: a sweep over its settings computes them once."""
    stage = reading(REFERENCE_LOGPROBS, QUANTIZED_BASE) if graph.quantizes_base else REFERENCE_LOGPROBS
    compared = {name: inputs[name] for name in ("base_model", "stored_adapter") if name in inputs}
    return [
        Place(name, stage, {**compared, "preference_data": inputs[data]}, given=given)
        for name, data in REFERENCES.items()
        if data in inputs
    ]


def merged_place(graph: GraphConfig) -> Place:
    """The node that folds the adapter into the base."""
    if not graph.quantizes_base:
        return Place("merged", MERGED, {"base_model": ("base_model",), "adapter": ("trained",)})
    inputs = {"base_model": ("base_model",), "quantized_base": ("quantized_base",), "adapter": ("trained",)}
    return Place("merged", reading(MERGED, QUANTIZED_BASE), inputs, given={"has_quantized_base": True})


def unique_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each dataset entry: the stem of its path, numbered where two are alike."""
    names: dict[str, None] = {}
    counts: dict[str, Iterator[int]] = {}
    for entry in entries:
        stem = Path(without_credentials(str(entry.get("path", "dataset")))).name.split(".")[0]
        name = plain_name(stem)
        numbers = counts.setdefault(name, itertools.count(2))
        while name in names:
            name = f"{plain_name(stem)}_{next(numbers)}"
        names[name] = None
    return list(names)


def plain_name(text: str) -> str:
    """A name that Dagster and file systems take: letters, digits and underscores of ASCII, and not too many.

    Two long ones stay apart.
    """
    shortened = short_name(text, LONGEST_NAME)
    return re.sub(r"[^A-Za-z0-9_]", "_", shortened) or "unnamed"
