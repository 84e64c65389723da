"""Put a model and what is told of it into one folder, the same every time but for the signature."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from tunemill.resources.protocols import BOM_FILE, CARD, LINEAGE_FILE, SIGNATURE_FILE
from tunemill.stages.artifacts import Artifact, EvaluationReport, LeakageReport
from tunemill.stages.models.files import copy_file
from tunemill.stages.models.published.bill_of_materials import bill_of_materials
from tunemill.stages.models.published.card import card
from tunemill.stages.models.published.config import PublishedConfig
from tunemill.stages.models.published.scores import Score, scores_in
from tunemill.stages.plot_svg import plot_svg
from tunemill.stages.report import Report, Workspace

# What is written anew, and the lineage, which is published as the pipeline has it.
OWN = frozenset({CARD, BOM_FILE, SIGNATURE_FILE, LINEAGE_FILE})


def publish(
    config: PublishedConfig,
    model: Artifact,
    training: Artifact,
    out: Workspace,
    report: Report,
    evaluations: Sequence[EvaluationReport] = (),
    leakage: Sequence[LeakageReport] = (),
) -> None:
    """Write the folder: the model's files as they are, card, bill of materials, plots, and a signature if asked for."""
    del training  # What is told of it is in `provenance`.
    del leakage  # A gate: it only has to be there before.
    files = _copied(model.path, out.data)
    scores: list[Score] = []
    for node, evaluation in zip(config.evaluations, evaluations, strict=True):
        scores += scores_in(node, evaluation)
    pictures = {}
    for plot in config.provenance.get("plots", []):
        name = f"{plot['title'].lower().replace(' ', '_').replace('-', '_')}.svg"
        (out.data / name).write_text(plot_svg(plot), encoding="utf-8")
        pictures[plot["title"]] = name
    bom = bill_of_materials(config, files, scores)
    (out.data / BOM_FILE).write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
    (out.data / CARD).write_text(card(config, scores, pictures), encoding="utf-8")
    if config.publish_sign is not None:
        from tunemill.stages.models.published.signature_body import sign

        sign(out.data, Path(config.publish_sign))
    report.summary(
        files=len(files),
        bytes=sum((out.data / name).stat().st_size for name in files),
        datasets=len(config.provenance.get("datasets", [])),
        signed=config.publish_sign is not None,
    )


def _copied(model: Path, target: Path) -> dict[str, str]:
    """Copy the model's files; their SHA-256 by name."""
    names = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
    hashes = {}
    for name in (name for name in names if name not in OWN):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy_file(model / name, target / name)
        with (target / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
