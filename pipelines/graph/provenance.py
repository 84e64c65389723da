"""What a stage that describes a model is given: the data, settings, versions and losses behind it, out of its lineage.

Times, hosts, places and who computed it first are left out, so that what is made again is described alike.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.keys import NOT_INSTALLED
from tunemill.pipelines.graph.lineage import lineage_in, settings_of
from tunemill.pipelines.graph.lineage_names import named_by_graph
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.public_lineage import public_lineage
from tunemill.pipelines.graph.told_places import this_machine, told
from tunemill.resources.protocols import (
    ADOPTED,
    CARD,
    HUB,
    HUB_DATASETS,
    HUB_MODELS,
    LINEAGE_FILE,
    licence_in,
    without_credentials,
)
from tunemill.resources.store import Published
from tunemill.stages.artifacts import BaseModel, FetchedAdapter, FetchedModel, Tokenizer
from tunemill.stages.declaration import CodeMark
from tunemill.stages.named import is_method, stage_named

FIELD, LINEAGE = "provenance", "model_lineage"
# The identities of a source that say what was in it.
CONTENTS = ("sha256", "commit", "checksum")
ONLY_CONFIG = "config"
# What is read out of files or repositories, and holds no rows.
OF_MODELS = tuple(kind.__name__ for kind in (Tokenizer, FetchedModel, FetchedAdapter))
SHOWN_PLOTS = ("Training loss", "Held-out loss")


def described(pipeline: Pipeline, node: Node, inputs: Mapping[str, Published]) -> Node:
    """The node with what it is given to tell of its inputs, by upstream names; most nodes tell nothing.

    Nothing that is told names where anything lies on this machine.
    """
    if FIELD not in type(node.config).model_fields:
        return node
    training, scores = (
        [inputs[name] for name in node.inputs.get(field, ())] for field in ("training", "evaluations")
    )
    (model,) = node.inputs["model"]
    folder = pipeline.document.folder
    found = told(provenance(inputs[model], training, scores), this_machine(folder))
    whole = lineage_in(inputs[model].data / LINEAGE_FILE)
    if not model.startswith(ASSET_SCHEME):
        whole = named_by_graph(pipeline, pipeline.node(model), whole)
    given = {FIELD: found, LINEAGE: public_lineage(whole, whole["key"], folder)}
    return replace(node, config=node.config.model_copy(update=given))


def provenance(
    model: Published, training: Sequence[Published], scores: Sequence[Published]
) -> dict[str, Any]:
    """As plain JSON types: `datasets`, `bases`, `stages`, `libraries`, `plots`.

    Datasets that only evaluations have read are among them, with `use` saying so.
    """
    lineage = lineage_in(model.data / LINEAGE_FILE)
    items = [*lineage["ancestors"].values(), lineage]
    libraries: dict[str, str] = {}
    for item in items:
        packages = item.get("made_with", {}).get("packages") or item.get("libraries", {})
        # A tool that has an environment of its own is not installed here.
        libraries |= {name: version for name, version in packages.items() if version != NOT_INSTALLED}
    learned = {item["key"] for item in items}
    others = {
        key: item
        for score in scores
        for key, item in lineage_in(score.data / LINEAGE_FILE)["ancestors"].items()
        if key not in learned
    }
    return {
        "model": {"stage": lineage["stage"], "artifact": lineage["artifact"], "digest": lineage["digest"]},
        "datasets": [
            {**dataset, "use": use}
            for use, found in (("training", items), ("scoring", others.values()))
            for item in found
            for dataset in _datasets(item)
        ],
        "bases": [base for item in items for base in _bases(item)],
        "stages": [
            {
                "node": _short(item),
                "stage": item["stage"],
                "version": item.get("version"),
                "digest": item["digest"],
                "trains": is_method(item["stage"]),
                "settings": settings_of(item),
            }
            for item in items
        ],
        "libraries": dict(sorted(libraries.items())),
        "plots": [plot for item in training for plot in _plots(item)],
    }


def _short(item: Mapping[str, Any]) -> str:
    return str(item["node"]).partition("/")[2] or str(item["node"])


def _datasets(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of what reads rows out of files or repositories: those, with what was in them."""
    stage = stage_named(item["stage"])
    if stage is None or not stage.prepares_data or item["artifact"] in OF_MODELS:
        return
    code = stage.config.marked(CodeMark)
    sources = [
        {**_source(source), **_licence(source, item)}
        for name, found in item["sources"].items()
        if name not in code
        for source in found
    ]
    if sources:
        rows = item["metrics"].get("rows")
        yield {"node": _short(item), "rows": rows, "digest": item["digest"], "sources": sources}


def _bases(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Models that were made elsewhere: of the Hub, of a folder, or adopted."""
    # Of a repository from which nothing but its config was taken no model was made.
    fetched = item["artifact"] == FetchedModel.__name__ and ONLY_CONFIG not in item["config"].values()
    if fetched or item["artifact"] == BaseModel.__name__ or item["stage"] == ADOPTED:
        for source in (source for found in item["sources"].values() for source in found):
            yield {**_source(source), "digest": item["digest"], **_licence(source, item)}


def _source(source: Mapping[str, Any]) -> dict[str, Any]:
    """The name of a source that says nothing of this machine, and what was in it."""
    return {
        "name": public_name(str(source["path"])),
        **{name: source[name] for name in CONTENTS if source.get(name)},
    }


def public_name(path: str) -> str:
    """`owner/name` of the Hub, a URL without who one is, and of a local file the last part of its path."""
    if path.startswith(HUB):
        return path.removeprefix(HUB_DATASETS).removeprefix(HUB_MODELS)
    return without_credentials(path) if "://" in path else Path(path).name


def _licence(source: Mapping[str, Any], item: Mapping[str, Any]) -> dict[str, str]:
    """The licence that the card of a repository names, or that in a local folder."""
    path = str(source["path"])
    found = item["metrics"].get("license") if path.startswith(HUB) else None
    if "://" not in path:
        try:
            found = licence_in((Path(path) / CARD).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            return {}
    return {"license": found} if isinstance(found, str) else {}


def _plots(training: Published) -> Iterator[dict[str, Any]]:
    for plot in training.manifest["plots"]:
        if plot["title"] in SHOWN_PLOTS and all(math.isfinite(value) for value in (*plot["x"], *plot["y"])):
            yield {name: plot[name] for name in ("title", "x", "y", "x_label", "y_label", "bars")}
