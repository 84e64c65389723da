"""One page a pipeline, to open in the morning: scores, losses, answers, what changed, what it cost, what failed."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from tunemill.pipelines.assets.assets import asset_key
from tunemill.pipelines.assets.descriptions import answers, reasons
from tunemill.pipelines.assets.freshness import SUMMARY, freshness_policy
from tunemill.pipelines.assets.jobs import what_to_press
from tunemill.pipelines.assets.markdown import markdown_table, page_of, plain
from tunemill.pipelines.graph.keys import upstream_of
from tunemill.pipelines.report.scores import changed_settings, evaluations, moved_scores, score_table
from tunemill.pipelines.run.evaluated import evaluated_name
from tunemill.pipelines.run.figures import count_of, duration
from tunemill.pipelines.run.look import Look
from tunemill.pipelines.run.pictures import picture
from tunemill.resources.canonical import SHORT

MOST_CHANGES, MOST_SLOW = 12, 3
SEVERITIES = {"error": "❌ error", "warning": "⚠️ warning"}
SIGNS = {
    "passed": "✅ passed",
    "failed": "❌ failed",
    "cannot tell": "⚠️ cannot tell",
    "not known": "not known",
}


def summary_asset(look: Look, count: int) -> dg.AssetSpec:
    """The page as an asset that nobody materializes: its description is written when definitions load.

    The pipeline is one of `count` that are loaded together.
    """
    pipeline = look.pipeline
    taken = {up for node in pipeline.nodes for up in upstream_of(node)}
    last = [node for node in pipeline.nodes if node.name not in taken]
    report = next((record.report for record in look.records if record.report.is_file()), None)
    return dg.AssetSpec(
        key=asset_key(pipeline.name, SUMMARY),
        deps=[asset_key(pipeline.name, node.name) for node in last],
        group_name=pipeline.name,
        description=summary(look, count),
        kinds={SUMMARY},
        owners=pipeline.owners,
        tags=pipeline.tags,
        freshness_policy=freshness_policy(pipeline.schedule),
        metadata={} if report is None else {"report": dg.MetadataValue.path(str(report))},
    )


def summary(look: Look, count: int = 1) -> str:
    """The page in Markdown, what people look for first, hashes last."""
    sections = [
        ("", _state(look)),
        ("Scores", _scores(look)),
        ("Gates", _gates(look)),
        ("Checks that failed", _checks(look)),
        ("What changed", _changes(look)),
        ("Loss", _curve(look)),
        ("Answers", _answers(look)),
        ("What it cost", _cost(look)),
        ("What to press", what_to_press(look.pipeline, count)),
        ("Models and data", _digests(look)),
    ]
    return page_of(f"### {title}\n\n{text}" if title else text for title, text in sections if text)


def _state(look: Look) -> str:
    waiting = [item for item in look.plan.values() if item.state == "run"]
    failed = [] if not look.records else look.records[0].named("failed")
    lines = []
    for name in failed:
        message = look.records[0].nodes[name].message or ""
        lines.append(f"**❌ {plain(name)} failed in the last run:** {plain(message.partition(chr(10))[0])}")
    if look.unreached is not None:
        lines.append(f"**Of the team's store what this machine knows is shown:** {plain(look.unreached)}")
    if look.problem is not None:
        return "\n\n".join([*lines, f"**Cannot be planned:** {plain(look.problem)}"])
    if not look.artifacts:
        return "\n\n".join([*lines, "**Nothing is computed yet.** Materialize the group to begin."])
    if not waiting:
        return "\n\n".join([*lines, "**Up to date**: everything is as the YAML asks for."])
    roots = {cause: why for item in waiting for cause, why in look.causes(item.node.name).items()}
    said = "; ".join(f"{plain(name)}: {reasons(why)}" for name, why in roots.items())
    return "\n\n".join([*lines, f"**{count_of(len(waiting), 'node')} will be computed**, because of {said}"])


def _scores(look: Look) -> str:
    table = score_table(look)
    cells = [list(map(plain, row)) for row in table.rows]
    return markdown_table(list(map(plain, table.columns)), cells) if cells else ""


def _gates(look: Look) -> str:
    rows = [[SIGNS[one["state"]], plain(one["gate"]), plain(one["text"])] for one in look.excerpts.gates]
    return markdown_table(["state", "gate", "why"], rows) if rows else ""


def _checks(look: Look) -> str:
    rows = [
        [SEVERITIES[one.severity], *map(plain, (one.node, one.check, one.text, one.advice or ""))]
        for one in look.failed_checks
    ]
    return markdown_table(["state", "node", "check", "seen", "what to do"], rows) if rows else ""


def _curve(look: Look) -> str:
    curves = [one.curve for one in look.excerpts.nodes.values() if one.curve]
    return picture(curves[-1], "loss of what is trained on and of what is held out") if curves else ""


def _answers(look: Look) -> str:
    """Of the last model that is evaluated."""
    found = [(node, text) for node in evaluations(look) if (text := answers(look.excerpts.nodes[node.name]))]
    return f"Of {plain(evaluated_name(found[-1][0]))}:\n\n{found[-1][1]}" if found else ""


def _changes(look: Look) -> str:
    """Settings and data that differed in the last run that computed anything, and the scores that moved."""
    lines = [f"{plain(node)}: {reasons(why)}" for node, why in changed_settings(look)]
    lines += [
        f"{plain(name)} of {plain(of)}: {plain(old)} → **{plain(new)}**"
        for name, of, old, new in moved_scores(look)
    ]
    more = len(lines) - MOST_CHANGES
    shown = [*lines[:MOST_CHANGES], f"and {more} more, which the report lists"] if more > 0 else lines
    return "\n".join(f"- {line}" for line in shown)


def _cost(look: Look) -> str:
    last = look.last
    if last is None:
        return ""
    computed = sorted(last.named("computed"), key=lambda name: -last.nodes[name].seconds)
    slow = ", ".join(f"{plain(name)} {duration(last.nodes[name].seconds)}" for name in computed[:MOST_SLOW])
    spent = sum(last.nodes[name].seconds for name in computed)
    when = f"The run of {last.started.replace('T', ' ').partition('+')[0]} UTC"
    longest = f", most of it in {slow}" if slow else ""
    lines = [f"{when} computed {count_of(len(computed), 'node')} in **{duration(spent)}**{longest}."]
    if cached := last.named("cached", "pinned"):
        lines.append(f"{count_of(len(cached), 'node')} cached, which saved **{duration(last.saved)}**.")
    return " ".join(lines)


def _digests(look: Look) -> str:
    artifacts = look.artifacts
    scoring = evaluations(look)
    shown = [
        node
        for node in look.pipeline.nodes
        if (node.stage.output.exported or not upstream_of(node)) and node not in scoring
    ]
    rows = [
        [plain(node.name), f"`{artifacts[node.name].digest[:SHORT]}`", _size(look, node.name)]
        for node in shown
        if node.name in artifacts
    ]
    return markdown_table(["node", "digest", "size"], rows) if rows else ""


def _size(look: Look, name: str) -> str:
    files: Mapping[str, Any] = look.artifacts[name].manifest["files"]
    count = float(sum(entry["bytes"] for entry in files.values()))
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
