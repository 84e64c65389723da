"""The model card: a README with a YAML head that the Hub reads."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from tunemill.resources.protocols import BOM_FILE, LINEAGE_FILE, SIGNATURE_FILE
from tunemill.stages.artifacts import Adapter, GgufModel
from tunemill.stages.models.published.config import PublishedConfig
from tunemill.stages.models.published.scores import Score

SHORT_HASH = 12
LONGEST_VALUE = 200
# How the Hub, too, calls the licence of what names none.
UNKNOWN = "unknown"
# How the Hub calls what a model is to its base, by the kind of its artifact and the stage that made it.
RELATIONS = {Adapter.__name__: "adapter", GgufModel.__name__: "quantized", "QuantizedModel": "quantized"}


def card(config: PublishedConfig, scores: Sequence[Score], pictures: Mapping[str, str]) -> str:
    """The card's text. `pictures`: title of each plot and its file."""
    told = config.provenance
    parts = [
        f"---\n{yaml.safe_dump(_head(config), sort_keys=False, allow_unicode=True)}---\n",
        f"# {config.model_name}\n",
        f"{_what(told)} Made by Tunemill, with the node `{config.of}` of its pipeline.\n",
        "## Data\n",
        _table(("dataset", "for", "rows", "from", "licence", "contents", "digest"), _datasets(told))
        or "No dataset is on record.\n",
    ]
    if scores:
        parts += ["## Scores\n", _table(("evaluation", "metric", "value", "interval"), map(_score, scores))]
    if pictures:
        parts += ["## Training\n", *(f"![{title}]({file})\n" for title, file in pictures.items())]
    parts += [
        "## Settings\n",
        "Those that are not at their defaults, of every stage behind the model.\n",
        _table(("node", "stage", "setting", "value"), _settings(told)),
        "## Versions\n",
        ", ".join(f"{name} {version}" for name, version in told.get("libraries", {}).items()) + "\n",
        "## Reproduce\n",
        _reproduce(config, told),
    ]
    return "\n".join(parts)


def _head(config: PublishedConfig) -> dict[str, Any]:
    told = config.provenance
    kind = told.get("model", {}).get("artifact", "")
    bases = [base["name"] for base in told.get("bases", []) if "commit" in base]
    datasets = [
        source["name"]
        for dataset in told.get("datasets", [])
        for source in dataset["sources"]
        if "commit" in source and dataset["use"] == "training"
    ]
    head: dict[str, Any] = {}
    head["license"] = licence_of(config) or UNKNOWN
    if bases:
        head |= {"base_model": bases, "base_model_relation": RELATIONS.get(kind, "finetune")}
    if datasets:
        head["datasets"] = list(dict.fromkeys(datasets))
    head["library_name"] = (
        "peft" if kind == Adapter.__name__ else "gguf" if kind == GgufModel.__name__ else "transformers"
    )
    methods = dict.fromkeys(stage["stage"] for stage in told.get("stages", []) if stage.get("trains"))
    return {**head, "tags": ["tunemill", *methods]}


def licence_of(config: PublishedConfig) -> str | None:
    """What was said, or else what the cards of all bases say alike."""
    found = {base.get("license") for base in config.provenance.get("bases", [])}
    return config.publish_license or (found.pop() if len(found) == 1 else None)


def _what(told: Mapping[str, Any]) -> str:
    bases = []
    for base in told.get("bases", []):
        commit = [f"commit {base['commit'][:SHORT_HASH]}"] if "commit" in base else []
        bases.append(f"{base['name']} ({', '.join([*commit, 'licence ' + base.get('license', UNKNOWN)])})")
    kind = {Adapter.__name__: "An adapter", GgufModel.__name__: "A model for llama.cpp"}.get(
        told.get("model", {}).get("artifact", ""), "A model"
    )
    return f"{kind}, trained from {' and '.join(bases)}." if bases else f"{kind}."


def _datasets(told: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    for dataset in told.get("datasets", []):
        for source in dataset["sources"]:
            contents = next(
                (f"{name} {source[name]}" for name in ("commit", "sha256", "checksum") if name in source),
                "not known",
            )
            rows = "" if dataset["rows"] is None else dataset["rows"]
            licence = source.get("license", UNKNOWN)
            yield dataset["node"], dataset["use"], rows, source["name"], licence, contents, dataset["digest"]


def _score(score: Score) -> Sequence[Any]:
    interval = ""
    if score.low is not None and score.high is not None:
        of = "" if score.confidence is None else f" ({score.confidence:.0%})"
        interval = f"{score.low:.4g} to {score.high:.4g}{of}"
    return score.node, score.metric, f"{score.value:.6g}", interval


def _settings(told: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    for stage in told.get("stages", []):
        for name, value in stage["settings"].items():
            text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
            short = text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"
            yield stage["node"], stage["stage"], name, short


def _reproduce(config: PublishedConfig, told: Mapping[str, Any]) -> str:
    digest = told.get("model", {}).get("digest", "")
    signed = (
        f"\n`{SIGNATURE_FILE}` signs every file:\n\n```sh\ntunemill verify FOLDER --key PUBLIC_KEY.pem\n```\n"
        if config.publish_sign
        else ""
    )
    return (
        f"`{LINEAGE_FILE}` says of every stage what it was made of and with; `{BOM_FILE}` is a bill of materials "
        f"(CycloneDX). The digest of the model's files is `{digest}`. In a folder with these files:\n\n"
        f"```sh\ntunemill reproduce . --files FOLDER_WITH_THE_DATA\n```\n{signed}"
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [_line(columns), _line(["---"] * len(columns)), *map(_line, rows)]
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def _line(cells: Sequence[Any]) -> str:
    plain = (str(cell).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") for cell in cells)
    return f"| {' | '.join(plain)} |"
