"""Put a model and what is told of it into one folder, the same every time but for the signature."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from tunemill.resources.protocols import (
    AS_PUBLISHED,
    BOM_FILE,
    CARD,
    LINEAGE_FILE,
    PUBLISHED_FOLDER,
    SIGNATURE_FILE,
    UNSIGNED,
)
from tunemill.stages.artifacts import Artifact, EvaluationReport, LeakageReport
from tunemill.stages.models.files import copy_file
from tunemill.stages.models.published.bill_of_materials import bill_of_materials
from tunemill.stages.models.published.card import card
from tunemill.stages.models.published.config import PublishedConfig
from tunemill.stages.models.published.scores import Score, scores_in
from tunemill.stages.plot_svg import plot_svg
from tunemill.stages.report import Report, Workspace

# What is written anew, and what no signature would be about.
OWN = frozenset({CARD, BOM_FILE, LINEAGE_FILE, *UNSIGNED})


def publish(
    config: PublishedConfig,
    model: Artifact,
    training: Artifact,
    out: Workspace,
    report: Report,
    evaluations: Sequence[EvaluationReport] = (),
    leakage: Sequence[LeakageReport] = (),
) -> None:
    """Write the folder: the model's files as they are, what is told of it, and last a signature of all if asked for."""
    del training  # What is told of it is in `provenance`.
    del leakage  # A gate: it only has to be there before.
    folder = out.data / PUBLISHED_FOLDER
    folder.mkdir()
    files = _copied(model.path, folder)
    scores: list[Score] = []
    for node, evaluation in zip(config.evaluations, evaluations, strict=True):
        scores += scores_in(node, evaluation)
    pictures = {}
    for plot in config.provenance.get("plots", []):
        name = f"{plot['title'].lower().replace(' ', '_').replace('-', '_')}.svg"
        (folder / name).write_text(plot_svg(plot), encoding="utf-8")
        pictures[plot["title"]] = name
    bom = bill_of_materials(config, files, scores)
    (folder / BOM_FILE).write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card(config, scores, pictures), encoding="utf-8")
    _write_lineage(config, folder, files)
    if config.publish_sign is not None:
        from tunemill.stages.models.published.signature_body import sign

        sign(folder, Path(config.publish_sign))
    report.summary(
        files=len(files),
        bytes=sum((folder / name).stat().st_size for name in files),
        datasets=len(config.provenance.get("datasets", [])),
        signed=config.publish_sign is not None,
    )


def _copied(model: Path, target: Path) -> dict[str, str]:
    """Copy the model's files; their SHA-256 by name."""
    names = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
    hashes = {}
    for name in (name for name in names if not _is_own(name)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy_file(model / name, target / name)
        hashes[name] = _hash(target / name)
    return hashes


def _is_own(name: str) -> bool:
    return any(name == own or name.startswith(f"{own}/") for own in OWN)


def _write_lineage(config: PublishedConfig, folder: Path, model: Mapping[str, str]) -> None:
    """The model's lineage, with the files that are its own, and all those that a later push may take away again."""
    there = sorted(path for path in folder.rglob("*") if path.is_file())
    hashes = {path.relative_to(folder).as_posix(): _hash(path) for path in there}
    digest = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    signature = {} if config.publish_sign is None else {SIGNATURE_FILE: ""}
    published = {"digest": digest, "files": {**hashes, **signature}}
    told = {**config.model_lineage, "files": dict(model), AS_PUBLISHED: published}
    (folder / LINEAGE_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
