"""A published model is sent where it is to go, as long as the target has not got it. Knows no Dagster.

The artifact is addressed as ever; what is outside is looked at each time that its node is brought up to date.
"""

import json
from collections.abc import Callable

from tunemill.pipelines.config.slices import ASSET_SCHEME
from tunemill.pipelines.graph.gates import outcomes
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import upstream_asset
from tunemill.pipelines.run.shared import DATA
from tunemill.resources.errors import StoreError, UnreachableError
from tunemill.resources.protocols import AS_PUBLISHED, BOM_FILE, LINEAGE_FILE, PUBLISHED_FOLDER
from tunemill.resources.store import Published, Store
from tunemill.resources.targets import Content, Target
from tunemill.stages.artifacts import PublishedModel

Say = Callable[[str], None]
# The state of a gate whose evaluation is not there.
UNKNOWN = "not known"


def publish(pipeline: Pipeline, node: Node, published: Published, store: Store, say: Say) -> None:
    """Send what a node gives away to every target of its pipeline that lacks it.

    Raises StoreError past a gate that blocks, and where a target cannot be written to. Where none answers and it was
    sent there before, that is enough.
    """
    if not issubclass(node.stage.output, PublishedModel) or not pipeline.targets:
        return
    refuse_past_gates(pipeline, store)
    content = content_of(published)
    for target in pipeline.targets:
        _send(target, content, store, say)


def refuse_past_gates(pipeline: Pipeline, store: Store) -> None:
    """Raises StoreError where a gate of the pipeline blocks."""
    nodes = {node for gate in pipeline.gates for node in gate.nodes}
    found = {name: upstream_asset(f"{ASSET_SCHEME}{pipeline.name}/{name}", store) for name in nodes}
    there = {name: item for name, item in found.items() if isinstance(item, Published)}
    blocking = [
        outcome for outcome in outcomes(pipeline, there) if outcome.blocks or outcome.state == UNKNOWN
    ]
    if blocking:
        told = "; ".join(f"{outcome.gate}: {outcome.state}: {outcome.text}" for outcome in blocking)
        raise StoreError(f"nothing is published past a gate that blocks: {told}")


def content_of(published: Published) -> Content:
    """What is published of the artifact: the folder in it, as it is, with the lineage last."""
    place = f"{DATA}{PUBLISHED_FOLDER}/"
    files = {
        name.removeprefix(place): entry["sha256"]
        for name, entry in published.manifest["files"].items()
        if name.startswith(place)
    }
    folder = published.data / PUBLISHED_FOLDER
    lineage = (folder / LINEAGE_FILE).read_bytes()
    del files[LINEAGE_FILE]
    bom = json.loads((folder / BOM_FILE).read_text(encoding="utf-8"))
    return Content(
        title=str(bom["metadata"]["component"]["name"]),
        digest=str(json.loads(lineage)[AS_PUBLISHED]["digest"]),
        files={name: folder / name for name in sorted(files)},
        hashes=files,
        lineage=lineage,
    )


def _send(target: Target, content: Content, store: Store, say: Say) -> None:
    # Which branch of a place counts too.
    known = f"published {target}"
    try:
        sent = target.send(content, store.stat_cache)
    except UnreachableError as error:
        if (store.stat_cache.recall(known) or {}).get("digest") == content.digest:
            say(f"{error}; this model was published there before")
            return
        raise StoreError(_not_sent(error)) from error
    except StoreError as error:
        raise StoreError(_not_sent(error)) from error
    store.stat_cache.remember(known, {"digest": content.digest, "where": sent.where})
    say(
        f"published: {sent.where}, {sent.files} files sent"
        if sent.files
        else f"published already: {sent.where}; nothing was sent"
    )


def _not_sent(error: StoreError) -> str:
    return f"the model is ready and kept, but could not be published: {error}. Run again to go on"
