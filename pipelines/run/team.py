"""What of a team's store a run brings to this machine: what it computes from, what people look at, what is light."""

from collections.abc import Callable, Sequence

from tunemill.pipelines.graph.keys import looked_at_by, upstream_of
from tunemill.pipelines.graph.nodes import Node, Pipeline
from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.run.links import link_of
from tunemill.resources.errors import StoreError
from tunemill.resources.refs import Ref
from tunemill.resources.store import Absent, Published, Store
from tunemill.resources.team_transfer import DamagedError

# Reports, tokenizers and few rows: what is shown of a node is read out of such.
LIGHT_BYTES = 32 << 20


def needed_here(pipeline: Pipeline, plan: Sequence[Planned]) -> frozenset[str]:
    """The nodes whose files a run needs on this machine: inputs of what it computes, and what is at an end.

    All others may stay in the team's store, with their manifest here.
    """
    running = [item.node for item in plan if item.state == "run"]
    inputs = {name for node in running for name in (*upstream_of(node), *looked_at_by(node))}
    passed_on = {name for node in pipeline.nodes for name in upstream_of(node)}
    ends = {
        node.name
        for node in pipeline.nodes
        if node.name not in passed_on or node.stage.output.exported or link_of(pipeline, node) is not None
    }
    return frozenset(inputs | ends)


def is_light(published: Published) -> bool:
    """Whether it is brought in any case."""
    return sum(int(entry["bytes"]) for entry in published.manifest["files"].values()) <= LIGHT_BYTES


def brought(store: Store, published: Published, say: Callable[[str], None]) -> bool:
    """Bring an artifact here; False where the team's is damaged, which is said and not taken for one again."""
    try:
        store.bring(published, say)
    except DamagedError as error:
        say(f"what the team's store has of {published.stage} is damaged: {error}")
        return False
    return True


def as_input(store: Store, node: Node, name: str, given: Published, say: Callable[[str], None]) -> Published:
    """An input with its files here. Raises StoreError where the team's is damaged, or where it has gone meanwhile.

    Whoever asks has noted that it reads it, so from now on it stays.
    """
    if not given.elsewhere and not given.folder.is_dir():
        # Another command has made room, before the note.
        found = store.lookup(given.stage, given.key)
        if not isinstance(found, Published) or found.digest != given.digest:
            raise StoreError(
                f"{node.name} needs {name}, which was deleted meanwhile (`tunemill cache prune`). Run again: it is "
                f"computed again"
            )
        given = found
    try:
        return store.bring(given, say)
    except DamagedError as error:
        raise StoreError(
            f"{node.name} needs {name}, which is damaged in the team's store: {error}. Run again: it is computed again"
        ) from error


def with_files(store: Store, found: Published) -> Published:
    """An artifact for whoever reads its rows, brought here without a word where only the team has it.

    Raises StoreError where it cannot be had.
    """
    return store.bring(found, lambda _: None)


def artifact_behind(store: Store, name: str, ref: Ref) -> Published:
    """What a node of that name points to, with its files here. Raises StoreError where it cannot be had."""
    found = store.lookup(ref.stage, ref.key)
    if isinstance(found, Absent):
        reason = "it is gone from the store" if found.reason == "never computed" else found.reason
        raise StoreError(
            f"{name}: {reason} ({store.folder(ref.stage, ref.key)}); run its pipeline again, which computes it anew"
        )
    return with_files(store, found)
