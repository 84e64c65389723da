"""A bill of materials of a model: CycloneDX 1.6, whose schema `cyclonedx-python-lib` checks in the tests.

Written by itself: that library has no model cards, in which the standard wants the data and the scores.
Source: https://cyclonedx.org/docs/1.6/json/.
"""

import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunemill.stages.models.published.card import UNKNOWN, licence_of
from tunemill.stages.models.published.config import PublishedConfig
from tunemill.stages.models.published.scores import Score

SCHEMA_URL = "http://cyclonedx.org/schema/bom-1.6.schema.json"
MODEL = "model"


def bill_of_materials(
    config: PublishedConfig, files: Mapping[str, str], scores: Sequence[Score]
) -> dict[str, Any]:
    """The model with its files (name to SHA-256), what it was trained from and on, and libraries, without a time."""
    told = config.provenance
    datasets, bases = list(_datasets(told)), list(_bases(told))
    libraries = [
        {
            "type": "library",
            "bom-ref": f"library:{name}",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
        }
        for name, version in told.get("libraries", {}).items()
    ]
    parts = [*bases, *datasets, *libraries]
    learned = [
        item["bom-ref"]
        for item in datasets
        if {"name": "tunemill:use", "value": "training"} in item["properties"]
    ]
    digest = told.get("model", {}).get("digest", "")
    return {
        "$schema": SCHEMA_URL,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'tunemill:{digest}:{config.model_name}')}",
        "version": 1,
        "metadata": {"component": _model(config, files, scores, learned)},
        "components": parts,
        "dependencies": [{"ref": MODEL, "dependsOn": sorted({item["bom-ref"] for item in parts})}],
    }


def _model(
    config: PublishedConfig, files: Mapping[str, str], scores: Sequence[Score], datasets: Sequence[str]
) -> dict[str, Any]:
    told = config.provenance.get("model", {})
    licence = licence_of(config)
    return {
        "type": "machine-learning-model",
        "bom-ref": MODEL,
        "name": config.model_name,
        "version": told.get("digest", "")[:12],
        **_licensed(licence),
        "modelCard": {
            "modelParameters": {"datasets": [{"ref": ref} for ref in datasets]},
            "quantitativeAnalysis": {"performanceMetrics": [_metric(score) for score in scores]},
        },
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{name}",
                "name": name,
                "hashes": [{"alg": "SHA-256", "content": content}],
            }
            for name, content in files.items()
        ],
        "properties": _properties(stage=told.get("stage"), digest=told.get("digest")),
    }


def _metric(score: Score) -> dict[str, Any]:
    found: dict[str, Any] = {"type": score.metric, "value": repr(score.value), "slice": score.node}
    if score.low is not None and score.high is not None:
        found["confidenceInterval"] = {"lowerBound": repr(score.low), "upperBound": repr(score.high)}
    return found


def _datasets(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    # Two pipelines may have nodes of one name.
    number = itertools.count(1)
    for dataset in told.get("datasets", []):
        for source in dataset["sources"]:
            yield {
                "type": "data",
                "bom-ref": f"dataset:{next(number)}:{dataset['node']}",
                "name": source["name"],
                **_contents(source),
                **_licensed(source.get("license")),
                "data": [{"type": "dataset", "name": dataset["node"]}],
                "properties": _properties(
                    use=dataset["use"],
                    rows=dataset["rows"],
                    digest=dataset["digest"],
                    checksum=source.get("checksum"),
                ),
            }


def _bases(told: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for number, base in enumerate(told.get("bases", [])):
        yield {
            "type": "machine-learning-model",
            "bom-ref": f"base:{number}",
            "name": base["name"],
            **_contents(base),
            **_licensed(base.get("license")),
            "properties": _properties(digest=base["digest"]),
        }


def _licensed(licence: str | None) -> dict[str, Any]:
    return {"licenses": [{"license": {"name": licence or UNKNOWN}}]}


def _contents(source: Mapping[str, Any]) -> dict[str, Any]:
    """Version and hash of what was read; the hash of a folder or repository is one over those of its files."""
    found: dict[str, Any] = {"version": source["commit"]} if "commit" in source else {}
    if "sha256" in source:
        found["hashes"] = [{"alg": "SHA-256", "content": source["sha256"]}]
    return found


def _properties(**values: Any) -> list[dict[str, str]]:
    return [
        {"name": f"tunemill:{name}", "value": str(value)}
        for name, value in values.items()
        if value is not None
    ]
