"""From a checked document to nodes and edges. Plain data; nothing heavy; the only file that knows every stage."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tunemill.pipelines.document import Document, KeyPath
from tunemill.pipelines.problems import Problem
from tunemill.pipelines.slices import ASSET_SCHEME, cut, validate
from tunemill.stages.base_model.stage import BASE_MODEL
from tunemill.stages.dataset.stage import DATASET
from tunemill.stages.declaration import ConflictError, EntryMark, SourceMark, Stage, StageConfig, YamlMark
from tunemill.stages.evaluation.stage import EVALUATION
from tunemill.stages.evaluation_data.stage import EVALUATION_DATA
from tunemill.stages.merged.stage import MERGED
from tunemill.stages.quantized.stage import QUANTIZED
from tunemill.stages.tokenized.stage import TOKENIZED
from tunemill.stages.tokenizer.stage import TOKENIZER
from tunemill.stages.trained.stage import TRAINED, TRAINED_ADAPTER
from tunemill.stages.training_data.stage import TRAINING_DATA

STAGES: tuple[Stage, ...] = (
    DATASET,
    TOKENIZER,
    TOKENIZED,
    TRAINING_DATA,
    EVALUATION_DATA,
    BASE_MODEL,
    TRAINED,
    MERGED,
    QUANTIZED,
    EVALUATION,
)

# The lists of which each item is a dataset entry.
ENTRY_LISTS = ("datasets", "test_datasets")
Evaluated = Literal["base", "trained", "merged", "quantized"]


class GraphConfig(StageConfig):
    """The keys that decide which nodes there are."""

    base_model: str = Field(
        min_length=1,
        description="a model's folder, or asset://<pipeline>/<node>: a model that another pipeline made",
    )
    datasets: list[dict[str, Any]] = Field(
        min_length=1, description="the datasets to train on, each a node of its own"
    )
    test_datasets: list[dict[str, Any]] = Field([], description="held-out datasets, only evaluated on")
    val_set_size: float = Field(
        0.0, ge=0, description="share (below 1) or number of training rows to hold out"
    )
    adapter: str | None = Field(
        None, description="the kind of adapter to train; without it every weight is trained"
    )
    quantization: dict[str, Any] | None = Field(
        None, description="ask for a quantized model, and of which kind"
    )
    output_dir: str | None = Field(
        None, description="where links to the results are put: a place, no part of any result"
    )
    dataset_prepared_path: str | None = Field(
        None, description="where a link to the prepared rows is put: a place, no part of any result"
    )
    name: Annotated[str | None, YamlMark("pipeline.name")] = Field(
        None, pattern=r"^[A-Za-z0-9_]{1,100}$", description="the pipeline's name; without it the file's stem"
    )
    evaluate: Annotated[list[Evaluated] | None, YamlMark("pipeline.evaluate")] = Field(
        None, description="which models to evaluate; without it all that there are"
    )

    @field_validator("base_model")
    @classmethod
    def _names_a_node(cls, value: str) -> str:
        if value.startswith(ASSET_SCHEME) and not re.fullmatch(r"asset://\w+/\w+(/\w+)?", value):
            raise ValueError("write asset://<pipeline>/<node>, for example asset://sft/merged")
        return value

    @model_validator(mode="after")
    def _evaluated_models_exist(self) -> "GraphConfig":
        asked = self.evaluate or []
        if len(set(asked)) < len(asked):
            raise ConflictError("names a model twice", "evaluate")
        if asked and not self.held_out:
            raise ConflictError(
                "there is nothing to evaluate on; give `test_datasets` or `val_set_size`", "evaluate"
            )
        if "merged" in asked and self.adapter is None:
            raise ConflictError(
                "there is no merged model to evaluate without `adapter`", "evaluate", "adapter"
            )
        if "quantized" in asked and self.quantization is None:
            raise ConflictError(
                "there is no quantized model to evaluate without `quantization`", "evaluate", "quantization"
            )
        if self.test_datasets and self.val_set_size:
            raise ConflictError(
                "give either `test_datasets` or `val_set_size`, not both", "val_set_size", "test_datasets"
            )
        return self

    @property
    def held_out(self) -> bool:
        return bool(self.test_datasets or self.val_set_size)


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
    def sources(self) -> dict[str, list[Path]]:
        """The local files and folders whose contents enter the key, by field."""
        found: dict[str, list[Path]] = {}
        slice_values = self.config.model_dump()
        for field in self.config.marked(SourceMark):
            value = slice_values[field]
            if value is not None:
                found[field] = [Path(item) for item in (value if isinstance(value, list) else [value])]
        return found


@dataclass(frozen=True)
class Pipeline:
    """A graph; `nodes` are in an order in which they can run.

    `output_dir` gets links to models and evaluations, `prepared_path` one to the training data.
    """

    name: str
    document: Document
    nodes: tuple[Node, ...]
    output_dir: Path | None
    prepared_path: Path | None

    def node(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)


@dataclass(frozen=True)
class Place:
    """A node whose slice has not been cut yet."""

    name: str
    stage: Stage
    inputs: Mapping[str, tuple[str, ...]]
    entry: KeyPath | None = None


def build(document: Document) -> tuple[Pipeline | None, list[Problem]]:
    """The graph of a document, or None and every problem that stands in its way."""
    graph_slice = cut(GraphConfig, document)
    graph = validate(GraphConfig, graph_slice, document)
    if isinstance(graph, list):
        return None, graph
    assert isinstance(graph, GraphConfig)
    problems: list[Problem] = []
    nodes = []
    for place in places(graph):
        piece = cut(place.stage.config, document, place.entry)
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
    return Pipeline(name, document, tuple(nodes), output_dir, prepared_path), []


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
    names = iter(unique_names([*graph.datasets, *graph.test_datasets]))
    tokenized: dict[str, list[str]] = {group: [] for group in ENTRY_LISTS}
    for group, entries in zip(ENTRY_LISTS, (graph.datasets, graph.test_datasets), strict=True):
        for index in range(len(entries)):
            name = next(names)
            found.append(Place(f"dataset/{name}", DATASET, {}, (group, index)))
            inputs = {"dataset": (f"dataset/{name}",), "tokenizer": ("tokenizer",)}
            found.append(Place(f"tokenized/{name}", TOKENIZED, inputs, (group, index)))
            tokenized[group].append(f"tokenized/{name}")
    found.append(Place("training_data", TRAINING_DATA, {"tokenized": tuple(tokenized["datasets"])}))
    if graph.test_datasets:
        found.append(
            Place("evaluation_data", EVALUATION_DATA, {"tokenized": tuple(tokenized["test_datasets"])})
        )
    elif graph.held_out:
        found.append(Place("evaluation_data", EVALUATION_DATA, {"training_data": ("training_data",)}))
    return [*found, *model_places(graph, upstream)]


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
