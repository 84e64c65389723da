"""Everything that the report of a run tells, gathered from the store, the record of the run and the YAML."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunemill.pipelines.graph.lineage import contents_of, datasets_behind, lineage_in
from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.result_checks import Checked
from tunemill.pipelines.report.data_parts import DataPart, data_part
from tunemill.pipelines.report.graph_svg import Shown, graph_svg
from tunemill.pipelines.report.moved_rows import Moved, compared_lines, moved_rows
from tunemill.pipelines.report.rollouts_part import RolloutsPart, rollouts_part
from tunemill.pipelines.report.scores import (
    Table,
    changed_settings,
    evaluations,
    moved_scores,
    score_table,
)
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.excerpt import answer_rows
from tunemill.pipelines.run.figures import count_of, duration, figure
from tunemill.pipelines.run.look import Look
from tunemill.pipelines.run.pictures import curves_svg, points_of
from tunemill.pipelines.run.record import Done, RunRecord
from tunemill.resources.canonical import SHORT
from tunemill.resources.errors import StoreError
from tunemill.resources.protocols import LINEAGE_FILE
from tunemill.resources.redaction import redacted, secrets_in
from tunemill.resources.store import Store

# A YAML that is longer is cut.
LONGEST_YAML = 100_000
IN_TEAM = "in the team's store"
# The worst first.
GATE_KINDS = {"failed": "bad", "cannot tell": "warn", "not known": "dim", "passed": "good"}
TITLES = {
    "scored": "Scores",
    "changes": "What changed",
    "graph": "Graph",
    "training": "Training",
    "rollouts": "Completions",
    "answers": "Answers",
    "rows": "Rows that moved",
    "data": "Data",
    "proofs": "Models",
    "environment": "Environment",
    "yaml": "YAML",
}


@dataclass(frozen=True)
class Part:
    """A node that is told of in figures and tables."""

    title: str
    words: str
    figures: Sequence[Sequence[str]]
    tables: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Parts:
    """What stands on the page, by the names that the template has for it."""

    name: str
    when: str
    run: str
    file: str
    failures: Sequence[str]
    notes: Sequence[str]
    contents: Sequence[tuple[str, str]]
    tiles: Sequence[Mapping[str, str]]
    scores: Table
    comparisons: Sequence[str]
    gates: Sequence[Mapping[str, str]]
    checks: Sequence[Checked]
    changes: Sequence[str]
    cost: str
    graph: str
    nodes: Sequence[Sequence[str]]
    curves: Sequence[Mapping[str, str]]
    trainings: Sequence[Part]
    rollouts: Sequence[RolloutsPart]
    answers: Table
    answered: str
    moved: Moved | None
    datasets: Table
    data: Sequence[DataPart]
    proofs: Sequence[Part]
    environment: Sequence[Sequence[str]]
    yaml: str
    overrides: Sequence[str]
    digests: Sequence[Sequence[str]]


def parts_of(look: Look, store: Store, record: RunRecord | None) -> Parts:
    """Gather them. `record` is of the run that is told of; without one the page tells how the pipeline stands."""
    pipeline, artifacts = look.pipeline, look.artifacts
    done = {} if record is None else record.nodes
    shown = {node.name: _shown(look, node, done.get(node.name)) for node in pipeline.nodes}
    scores, answered = score_table(look), _answered(look)
    curves = list(_curves(look))
    data = [
        data_part(node, artifacts[node.name])
        for node in pipeline.nodes
        if node.stage.prepares_data and node.name in artifacts
    ]
    others = [node for node in pipeline.nodes if node.name in artifacts and not node.stage.prepares_data]
    scored, rollouts = evaluations(look), _rollouts(look)
    changes = list(_changes(look))
    moved = moved_rows(look, store)
    there = {
        "scored": scores.rows,
        "changes": changes,
        "training": curves,
        "rollouts": rollouts,
        "answers": answered[1].rows,
        "rows": moved,
        "data": data,
    }
    return Parts(
        name=pipeline.name,
        when=_when(record),
        run="" if record is None else record.run[:SHORT],
        file=str(pipeline.document.path),
        failures=[f"{name} failed: {one.message}" for name, one in done.items() if one.state == "failed"],
        notes=_notes(look),
        contents=[(anchor, title) for anchor, title in TITLES.items() if there.get(anchor, True)],
        tiles=list(_tiles(look, scores, record)),
        scores=scores,
        comparisons=list(compared_lines(look)),
        gates=[{**one, "kind": GATE_KINDS[one["state"]]} for one in look.excerpts.gates],
        checks=look.failed_checks,
        changes=changes,
        cost=_cost(record),
        graph=graph_svg(pipeline, shown),
        nodes=[_node_row(node, done.get(node.name), look) for node in pipeline.nodes],
        curves=curves,
        trainings=[_part(node, look) for node in others if node.stage.tracked],
        rollouts=rollouts,
        answers=answered[1],
        answered=answered[0],
        moved=moved,
        datasets=_datasets(look),
        data=data,
        proofs=[_part(node, look) for node in others if node not in scored and not node.stage.tracked],
        environment=list(_environment(look)),
        yaml=_yaml(look),
        overrides=[_hidden(one.text, look) for one in pipeline.document.overrides.values()],
        digests=[
            [node.name, node.stage.name, artifacts[node.name].key[:SHORT], artifacts[node.name].digest]
            for node in pipeline.nodes
            if node.name in artifacts
        ],
    )


def _when(record: RunRecord | None) -> str:
    if record is None:
        return "as it stands now"
    return f"the run of {record.started.replace('T', ' ').partition('+')[0]} UTC"


def _notes(look: Look) -> list[str]:
    """What the page would not tell by itself: that something is to be computed, or cannot be planned."""
    if look.problem is not None:
        return [f"the YAML cannot be planned now: {look.problem}"]
    waiting = [name for name, item in look.plan.items() if item.state == "run"]
    roots = {cause: why for name in waiting for cause, why in look.causes(name).items()}
    said = "; ".join(f"{name} ({'; '.join(why)})" for name, why in roots.items())
    return [f"{count_of(len(waiting), 'node')} to be computed: {said}"] if waiting else []


def _tiles(look: Look, scores: Table, record: RunRecord | None) -> Iterator[dict[str, str]]:
    """The few figures that stand on top."""
    if scores.rows and len(scores.columns) > 1:
        last, name = scores.rows[-1], scores.columns[1]
        yield {
            "value": last[1].partition(" (")[0] or "not known",
            "words": f"{name} of {last[0]}",
            "kind": "",
        }
    if look.excerpts.gates:
        states = [one["state"] for one in look.excerpts.gates]
        worst = next(state for state in GATE_KINDS if state in states)
        yield {
            "value": f"{states.count(worst)} {worst}",
            "words": f"of {count_of(len(states), 'gate')}",
            "kind": GATE_KINDS[worst],
        }
    if record is not None:
        yield {
            "value": duration(record.seconds),
            "words": f"to compute {count_of(len(record.named('computed')), 'node')}",
            "kind": "",
        }
        cached = count_of(len(record.named("cached", "pinned")), "cached node")
        yield {"value": duration(record.saved), "words": f"saved by {cached}", "kind": "good"}


def _shown(look: Look, node: Node, done: Done | None) -> Shown:
    if done is not None and done.state == "computed":
        return Shown("computed", duration(done.seconds))
    if done is not None and done.state in ("cached", "pinned"):
        return Shown(done.state, f"{done.state}, saved {duration(done.computed_in or 0.0)}")
    if done is not None:
        return Shown(done.state, done.state)
    item = look.plan.get(node.name)
    if item is not None and item.state == "run":
        return Shown("stale", "to be computed")
    found = look.artifacts.get(node.name)
    if found is None:
        return Shown("stale", "not there")
    return Shown("cached", IN_TEAM if found.elsewhere else "in place")


def _node_row(node: Node, done: Done | None, look: Look) -> list[str]:
    if done is None:
        item = look.plan.get(node.name)
        return [
            node.name,
            "" if item is None else item.state,
            "",
            "",
            "" if item is None else "; ".join(item.why),
        ]
    computed = "" if done.computed_in is None else f"{done.computed_in:.1f}"
    why = done.message or "; ".join(done.reasons)
    return [node.name, done.state, f"{done.seconds:.1f}", computed, why]


def _cost(record: RunRecord | None) -> str:
    if record is None:
        return "No run of this version is on record."
    computed, cached = record.named("computed"), record.named("cached", "pinned")
    return (
        f"{count_of(len(computed), 'node')} computed in {duration(record.seconds)}; {count_of(len(cached), 'node')} "
        f"cached, which saved {duration(record.saved)}."
    )


def _changes(look: Look) -> Iterator[str]:
    yield from (f"{node}: {'; '.join(why)}" for node, why in changed_settings(look))
    yield from (f"{name} of {of}: {old} → {new}" for name, of, old, new in moved_scores(look))


def _curves(look: Look) -> Iterator[dict[str, str]]:
    """Every curve of a training; those of one unit in one picture."""
    for node in look.pipeline.nodes:
        if not node.stage.tracked or node.name not in look.artifacts:
            continue
        groups: dict[str, dict[str, Any]] = {}
        plots = [plot for plot in look.artifacts[node.name].manifest["plots"] if not plot["bars"]]
        for plot in plots:
            if points := points_of(plot):
                groups.setdefault(plot["y_label"], {})[plot["title"]] = points
        for unit, group in groups.items():
            title = " and ".join(group) if len(group) < 4 else unit
            yield {
                "title": f"{title} of {node.name}",
                "svg": curves_svg(group, plots[0]["x_label"], unit, falling=unit == plots[0]["y_label"]),
            }


def _rollouts(look: Look) -> list[RolloutsPart]:
    """What every training has kept of its own completions."""
    tracked = [node for node in look.pipeline.nodes if node.stage.tracked and node.name in look.artifacts]
    found = (rollouts_part(node.name, look.artifacts[node.name]) for node in tracked)
    return [one for one in found if one is not None]


def _answered(look: Look) -> tuple[str, Table]:
    """Some right and some wrong answers of the last model that was evaluated, and its name."""
    for node in reversed(evaluations(look)):
        excerpt = look.excerpts.nodes[node.name]
        rows = list(answer_rows(excerpt))
        if rows:
            names = list(dict.fromkeys(name for _, texts in rows for name in texts))
            cells = [[verdict, *(texts.get(name, "") for name in names)] for verdict, texts in rows]
            return evaluated_name(node), Table([excerpt.judged_by, *names], cells)
    return "", Table([], [])


def _part(node: Node, look: Look) -> Part:
    manifest = look.artifacts[node.name].manifest
    figures = [[name, figure(value)] for name, value in manifest["metrics"].items() if value is not None]
    return Part(node.name, node.stage.description, figures, manifest["tables"])


def _lineage(look: Look) -> dict[str, Any]:
    """The lineage of the model that is trained, else of the last artifact."""
    named = [node for node in look.pipeline.nodes if node.name in look.artifacts]
    node = next((node for node in named if node.stage.tracked), named[-1] if named else None)
    if node is None:
        return {}
    try:
        return lineage_in(look.artifacts[node.name].data / LINEAGE_FILE)
    except StoreError:
        return {}


def _datasets(look: Look) -> Table:
    found = _lineage(look)
    rows = [
        [item["node"], redacted(str(item["path"])), figure(item["rows"]), contents_of(item)]
        for item in (datasets_behind(found) if found else ())
    ]
    return Table(["dataset", "from", "rows", "contents"], rows)


def _environment(look: Look) -> Iterator[list[str]]:
    found = _lineage(look)
    yield ["host", figure(found.get("host"))]
    yield from _flat("", {**found.get("made_with", {}), "libraries in the key": found.get("libraries", {})})


def _flat(prefix: str, values: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{name} ", value)
        elif value not in (None, "", [], {}):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            yield [f"{prefix}{name}", redacted(shown)]


def _yaml(look: Look) -> str:
    document = look.pipeline.document
    try:
        text = _hidden(document.path.read_text("utf-8", errors="replace"), look)
    except OSError as error:
        return f"cannot be read any more: {error.strerror}"
    return text if len(text) <= LONGEST_YAML else f"{text[:LONGEST_YAML]}\n… (cut)"


def _hidden(text: str, look: Look) -> str:
    """A text without the secrets of the YAML and of its overrides."""
    return redacted(text, secrets_in(look.pipeline.document.raw, os.environ))
