"""What pages show of artifacts beside their manifests: how sure scores are, some answers, curves, gates. Kept ready.

<root>/excerpts/<pipeline>.json: one line with the hash of the rest, and a JSON object. As with the index it only saves
time: each entry is named by the digests that it was made of, and is made again where there is none.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.gates import outcomes
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.run.evaluated import intervals_of
from tunemill.pipelines.run.pictures import curves_svg, points_of
from tunemill.resources.local import LONGEST_NAME, short_name
from tunemill.resources.store import Published, Store
from tunemill.stages.artifacts import EvaluationReport
from tunemill.stages.errors import UserError
from tunemill.stages.evaluation.scored import Row, rows_in

FOLDER = "excerpts"
FORMAT = "tunemill-excerpts-2"
# How many rows are looked at, how many answers of each kind are shown, and how much of a text.
LOOKED_AT, SHOWN, LONGEST = 300, 3, 160
# Of an interval: the field of the rows that its metric is the mean of.
VALUES = "values"
# What of a row says which it is, or whether an answer came to its end, and is no score.
NO_SCORES = frozenset({"ended"})
NO_TEXTS = frozenset({"id", "group"})
ASKING = frozenset({"prompt"})
# How chat templates mark the borders of a turn, with the role that follows.
BORDER = re.compile(r"<\|[^<>|]{1,40}\|>(?:(?:system|user|assistant)\b)?")


@dataclass(frozen=True)
class Excerpt:
    """`right` and `wrong`: texts of some rows by the names that they have there, and `judged_by` which metric.

    `curve`: an SVG picture of losses.
    """

    intervals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    right: Sequence[Mapping[str, str]] = ()
    wrong: Sequence[Mapping[str, str]] = ()
    judged_by: str = ""
    curve: str = ""


@dataclass(frozen=True)
class Excerpts:
    """Of the nodes of a pipeline by name, and how its gates stand: words of the gate, state, text."""

    nodes: Mapping[str, Excerpt]
    gates: Sequence[Mapping[str, str]]


def excerpts(pipeline: Pipeline, store: Store, artifacts: Mapping[str, Published]) -> Excerpts:
    """What there is to show of the artifacts of nodes."""
    file = store.root / FOLDER / f"{short_name(pipeline.name, LONGEST_NAME)}.json"
    known = _read(file)
    kept: dict[str, Any] = {}
    nodes: dict[str, Excerpt] = {}
    for node in pipeline.nodes:
        published = artifacts.get(node.name)
        if published is None or not (node.stage.tracked or issubclass(node.stage.output, EvaluationReport)):
            continue
        if published.elsewhere:
            # Not kept: its rows may come.
            nodes[node.name] = excerpt_of(node, published)
            continue
        name = f"node {node.name} {published.digest}"
        found = Excerpt(**known[name]) if name in known else excerpt_of(node, published)
        nodes[node.name], kept[name] = found, asdict(found)
    gated = {
        node: artifacts[node].digest
        for gate in pipeline.gates
        for node in gate.nodes
        if node in artifacts and not artifacts[node].elsewhere
    }
    name = f"gates {[gate.model_dump(mode='json') for gate in pipeline.gates]} {sorted(gated.items())}"
    kept[name] = (
        known[name]
        if name in known
        else [
            {"gate": one.gate, "state": one.state, "text": one.text} for one in outcomes(pipeline, artifacts)
        ]
    )
    if kept != known:
        _write(file, kept)
    return Excerpts(nodes, kept[name])


def excerpt_of(node: Node, published: Published) -> Excerpt:
    """Read it out of the artifact. That of one that only the team has has no rows."""
    curve = loss_curves(published.manifest["plots"]) if node.stage.tracked else ""
    if published.elsewhere or not issubclass(node.stage.output, EvaluationReport):
        return Excerpt(curve=curve)
    intervals = intervals_of(node.stage, published.data)
    judged_by, right, wrong = _answers(published.data, intervals)
    return Excerpt(intervals, right, wrong, judged_by, curve)


def loss_curves(plots: Sequence[Mapping[str, Any]]) -> str:
    """All curves whose unit is that of the first one, which is the loss, in one picture; nothing without any."""
    lines = [plot for plot in plots if not plot["bars"]]
    same = [plot for plot in lines if plot["y_label"] == lines[0]["y_label"]]
    curves = {plot["title"]: points for plot in same if (points := points_of(plot))}
    return curves_svg(curves, lines[0]["x_label"], lines[0]["y_label"]) if curves else ""


def _answers(
    folder: Path, intervals: Mapping[str, Mapping[str, Any]]
) -> tuple[str, list[dict[str, str]], list[dict[str, str]]]:
    """By what rows are right or wrong, and the first of either kind; nothing where they are neither."""
    try:
        rows = list(islice(rows_in(EvaluationReport(folder).predictions), LOOKED_AT))
    except (OSError, UserError):
        return "", [], []
    named = [str(name) for one in intervals.values() if (name := one.get(VALUES)) is not None]
    fields = [*named, *(name for name in (rows[0] if rows else ()) if name not in NO_SCORES)]
    judge = next((name for name in fields if any(isinstance(row.get(name), bool) for row in rows)), None)
    if judge is None:
        return "", [], []
    sides = ([row for row in rows if row.get(judge) is outcome] for outcome in (True, False))
    right, wrong = ([_texts(row) for row in side[:SHOWN]] for side in sides)
    return judge, right, wrong


def _texts(row: Row) -> dict[str, str]:
    texts = {
        name: BORDER.sub("", value).strip() if name in ASKING else value
        for name, value in row.items()
        if isinstance(value, str) and name not in NO_TEXTS
    }
    return {name: value if len(value) <= LONGEST else _cut(name, value) for name, value in texts.items()}


def _cut(name: str, value: str) -> str:
    """Of a prompt the end, where the question stands; of other texts the beginning."""
    return f"…{value[-LONGEST:]}" if name in ASKING else f"{value[:LONGEST]}…"


def _read(file: Path) -> dict[str, Any]:
    """What is kept; nothing where it is damaged, or of another version."""
    try:
        seal, _, text = file.read_bytes().partition(b"\n")
    except OSError:
        return {}
    return dict(json.loads(text)) if seal == _seal(text) else {}


def _write(file: Path, kept: Mapping[str, Any]) -> None:
    """A store that cannot be written has none."""
    text = json.dumps(kept).encode()
    beside = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(_seal(text) + b"\n" + text)
        beside.replace(file)
    except OSError:
        with suppress(OSError):
            beside.unlink()


def _seal(text: bytes) -> bytes:
    return hashlib.sha256(FORMAT.encode() + b"\n" + text).hexdigest().encode()


def answer_rows(excerpt: Excerpt) -> Iterator[tuple[str, Mapping[str, str]]]:
    """The answers that are shown, each with `right` or `wrong`."""
    yield from (("right", row) for row in excerpt.right)
    yield from (("wrong", row) for row in excerpt.wrong)
