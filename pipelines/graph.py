"""From a checked document to nodes and edges. Plain data; nothing heavy; the only file that knows every stage."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from tunemill.pipelines.document import Document, KeyPath
from tunemill.pipelines.graph_config import SYNTHETIC_TYPE, GraphConfig
from tunemill.pipelines.problems import Problem
from tunemill.pipelines.slices import ASSET_SCHEME, cut, validate
from tunemill.stages.base_model.stage import BASE_MODEL
from tunemill.stages.dataset.stage import DATASET
from tunemill.stages.declaration import (
    EntryMark,
    Stage,
    StageConfig,
    is_whole,
    listed,
)
from tunemill.stages.evaluation.stage import EVALUATION
from tunemill.stages.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.merged.stage import MERGED
from tunemill.stages.preference_data.stage import PREFERENCE_DATA
from tunemill.stages.preferences.stage import PREFERENCES
from tunemill.stages.pretraining_data.stage import PRETRAINING_DATA
from tunemill.stages.quantized.stage import QUANTIZED
from tunemill.stages.tokenized.stage import SYNTHETIC, TOKENIZED
from tunemill.stages.tokenizer.stage import TOKENIZER
from tunemill.stages.trained.stage import TRAINED, TRAINED_ADAPTER
from tunemill.stages.training_data.stage import TRAINING_DATA

# What `preprocess` runs.
DATA_STAGES: tuple[Stage, ...] = (
    DATASET,
    TOKENIZER,
    TOKENIZED,
    SYNTHETIC,
    TRAINING_DATA,
    EVALUATION_DATA,
    PRETRAINING_DATA,
    PREFERENCES,
    PREFERENCE_DATA,
)

DATA_STAGE_NAMES = frozenset(stage.name for stage in DATA_STAGES)

STAGES: tuple[Stage, ...] = (
    *DATA_STAGES,
    BASE_MODEL,
    TRAINED,
    MERGED,
    QUANTIZED,
    EVALUATION,
)


@dataclass(frozen=True)
class Node:
    """One stage in one pipeline.

    `inputs` maps an input's name to upstream nodes (or `asset://` names), `places` a field of the config to
    the key that fed it.
    """

    name: str
    stage: Stage
    config: StageConfig
    inputs: Mapping[str, tuple[str, ...]]
    places: Mapping[str, KeyPath]

    @property
    def sources(self) -> dict[str, list[str]]:
        """What the config names whose contents enter the key, by field: absolute paths, and URLs."""
        named = {field: listed(getattr(self.config, field)) for field in sorted(self.config.sources())}
        whole = {field: [name for name in names if is_whole(name)] for field, names in named.items()}
        return {field: names for field, names in whole.items() if names}


@dataclass(frozen=True)
class Pipeline:
    """A graph; `nodes` are in an order in which they can run.

    `output_dir` gets links to models and evaluations, `prepared_path` one to the training data. `prepares_only` is
    the setting for which data can be prepared and nothing be trained yet.
    """

    name: str
    document: Document
    nodes: tuple[Node, ...]
    output_dir: Path | None
    prepared_path: Path | None
    prepares_only: str | None = None

    def data(self) -> "Pipeline":
        """The part that prepares data."""
        return replace(self, nodes=tuple(node for node in self.nodes if node.stage.name in DATA_STAGE_NAMES))

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


@dataclass(frozen=True)
class Place:
    """A node whose slice has not been cut yet."""

    name: str
    stage: Stage
    inputs: Mapping[str, tuple[str, ...]]
    entry: KeyPath | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What a stage is told that is no key: where its node stands, and the day."""
        held_out = self.entry is not None and self.entry[0] == "test_datasets"
        return {"held_out": held_out, "today": date.today().isoformat()}


def build(document: Document) -> tuple[Pipeline | None, list[Problem]]:
    """The graph of a document, or None and every problem that stands in its way."""
    document = spelled_out(document)
    graph_slice = cut(GraphConfig, document)
    graph = validate(GraphConfig, graph_slice, document)
    if isinstance(graph, list):
        return None, graph
    assert isinstance(graph, GraphConfig)
    problems: list[Problem] = []
    nodes = []
    for place in places(graph):
        piece = cut(place.stage.config, document, place.entry, place.given)
        config = validate(place.stage.config, piece, document)
        if isinstance(config, list):
            problems += [problem for problem in config if problem not in problems]
        else:
            nodes.append(Node(place.name, place.stage, config, place.inputs, piece.places))
    problems += idle_problems(document, {node.stage.name for node in nodes})
    if problems:
        return None, problems
    name = graph.name or plain_name(document.path.stem)
    if graph.base_model.startswith(f"{ASSET_SCHEME}{name}/"):
        message = f"{graph.base_model} is this pipeline's own result; name another pipeline's"
        return None, [Problem("base_model", *document.position(("base_model",)), "conflict", message)]
    output_dir, prepared_path = (
        document.folder / Path(place).expanduser() if place else None
        for place in (graph.output_dir, graph.dataset_prepared_path)
    )
    return Pipeline(name, document, tuple(nodes), output_dir, prepared_path, graph.prepares_only), []


def spelled_out(document: Document) -> Document:
    """The document with `pretraining_dataset: name`, which Axolotl takes too, as a list of one entry."""
    given = document.data.get("pretraining_dataset")
    if not isinstance(given, str):
        return document
    return replace(document, data={**document.data, "pretraining_dataset": [{"path": given}]})


def idle_problems(document: Document, used: set[str]) -> list[Problem]:
    """Wrong values of keys whose stage has no node in this graph."""
    found: list[Problem] = []
    for stage in STAGES:
        if stage.name not in used and not stage.config.marked(EntryMark):
            config = validate(stage.config, cut(stage.config, document), document)
            found += (
                [problem for problem in config if "required" not in problem.message]
                if isinstance(config, list)
                else []
            )
    if EVALUATION.name not in used:
        for key in ("eval_steps", "evals_per_epoch"):
            if key in document.data:
                message = "there is nothing to evaluate on; give `test_datasets` or `val_set_size`, or remove the key"
                found.append(Problem(key, *document.position((key,)), "conflict", message))
    return found


def places(graph: GraphConfig) -> list[Place]:
    """Every node with its edges, in an order in which they can run."""
    upstream = {"upstream": (graph.base_model,)} if graph.base_model.startswith(ASSET_SCHEME) else {}
    found = [Place("tokenizer", TOKENIZER, upstream)]
    found += data_places(graph)
    if not graph.prepares_only:
        found += model_places(graph, upstream)
    return found


def data_places(graph: GraphConfig) -> list[Place]:
    """The nodes from the sources to training data and held-out rows."""
    pairs = graph.rl is not None or graph.reward_model
    lists = {"datasets": graph.datasets, "test_datasets": graph.test_datasets}
    found: list[Place] = []
    names = iter(unique_names([entry for entries in lists.values() for entry in entries]))
    prepared: dict[str, tuple[str, ...]] = {}
    for group, entries in lists.items():
        rows = [
            row_places(next(names), (group, index), entries[index], pairs) for index in range(len(entries))
        ]
        found += [place for places in rows for place in places]
        prepared[group] = tuple(places[-1].name for places in rows)
    if graph.pretraining_dataset:
        inputs = {"tokenizer": ("tokenizer",)}
        found.append(Place("training_data", PRETRAINING_DATA, inputs, ("pretraining_dataset", 0)))
    else:
        stage = PREFERENCE_DATA if pairs else TRAINING_DATA
        found.append(Place("training_data", stage, {"tokenized": prepared["datasets"]}))
    return [*found, *held_out_places(graph, prepared["test_datasets"], pairs)]


def row_places(name: str, entry: KeyPath, settings: Mapping[str, Any], pairs: bool) -> list[Place]:
    """The nodes of one dataset entry; the last one holds its prepared rows."""
    tokenizer = {"tokenizer": ("tokenizer",)}
    if settings.get("type") == SYNTHETIC_TYPE:
        return [Place(f"tokenized/{name}", SYNTHETIC, tokenizer, entry)]
    inputs = {"dataset": (f"dataset/{name}",), **tokenizer}
    stage = PREFERENCES if pairs else TOKENIZED
    return [Place(f"dataset/{name}", DATASET, {}, entry), Place(f"tokenized/{name}", stage, inputs, entry)]


def held_out_places(graph: GraphConfig, tokenized: tuple[str, ...], pairs: bool) -> list[Place]:
    """The node of the rows that are never trained on, if there are any."""
    training_data = {"training_data": ("training_data",)}
    if tokenized and pairs:
        return [Place("evaluation_data", PREFERENCE_DATA, {"tokenized": tokenized})]
    if tokenized:
        inputs = {"tokenized": tokenized, **(training_data if graph.dataset_exact_deduplication else {})}
        return [Place("evaluation_data", EVALUATION_DATA, inputs)]
    return [Place("evaluation_data", EVALUATION_DATA, training_data)] if graph.held_out and not pairs else []


def model_places(graph: GraphConfig, upstream: Mapping[str, tuple[str, ...]]) -> list[Place]:
    """The nodes from the base model on."""
    found = [Place("base_model", BASE_MODEL, {"tokenizer": ("tokenizer",), **upstream})]
    held_out = {"evaluation_data": ("evaluation_data",)} if graph.held_out else {}
    models: dict[str, dict[str, tuple[str, ...]]] = {"base": {"model": ("base_model",)}}
    training = {"base_model": ("base_model",), "training_data": ("training_data",), **held_out}
    if graph.adapter is None:
        found.append(Place("trained", TRAINED, training))
        models["trained"] = {"model": ("trained",)}
    else:
        found.append(Place("trained", TRAINED_ADAPTER, training))
        found.append(Place("merged", MERGED, {"base_model": ("base_model",), "adapter": ("trained",)}))
        models["trained"] = {"model": ("base_model",), "adapter": ("trained",)}
        models["merged"] = {"model": ("merged",)}
    if graph.quantization is not None:
        found.append(
            Place("quantized", QUANTIZED, {"model": ("trained" if graph.adapter is None else "merged",)})
        )
        models["quantized"] = {"model": ("quantized",)}
    if graph.held_out:
        asked: Sequence[str] = list(models) if graph.evaluate is None else graph.evaluate
        found += [Place(f"evaluation/{what}", EVALUATION, {**models[what], **held_out}) for what in asked]
    return found


def unique_names(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each dataset entry: the stem of its path, numbered where two are alike."""
    names: list[str] = []
    for entry in entries:
        stem = Path(str(entry.get("path", "dataset"))).name.split(".")[0]
        name = plain_name(stem)
        numbered = (f"{name}_{count}" for count in itertools.count(2))
        names.append(name if name not in names else next(item for item in numbered if item not in names))
    return names


def plain_name(text: str) -> str:
    """A name that Dagster takes: letters, digits and underscores of ASCII."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text) or "unnamed"
