"""Whether what a pipeline's nodes point to is what its YAML asks for now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunemill.pipelines.config.problems import ConfigError
from tunemill.pipelines.graph.gates import outcomes
from tunemill.pipelines.graph.plan import Planned, make_plan
from tunemill.pipelines.graph.sweep import load_named
from tunemill.pipelines.graph.without_pins import Unpinned, without_pins
from tunemill.resources.errors import StoreError
from tunemill.resources.origins import read_grid
from tunemill.resources.store import Store
from tunemill.stages.errors import UserError

if TYPE_CHECKING:
    from tunemill.stages.evaluation.gate_outcome import Outcome

CURRENT, STALE, NEVER, PINNED = "current", "stale", "never computed", "pinned"


@dataclass(frozen=True)
class Standing:
    """`nodes` -> (state, why) of each node of the YAML, and how its gates stand; or what is wrong with that."""

    nodes: Mapping[str, tuple[str, str]]
    problem: str | None = None
    gates: Sequence["Outcome"] = ()


def standing(file: Path, pipeline: str, store: Store) -> Standing:
    """Compare what the store has of a pipeline with its YAML."""
    try:
        loaded = load_named(file, pipeline, read_grid(store.root, pipeline))
        if loaded.name != pipeline:
            return Standing({}, f"{file} is the pipeline {loaded.name} now")
        plan = make_plan(loaded, store)
        unpinned = without_pins(loaded, store, plan)
        return Standing(
            {item.node.name: _state(item, pipeline, store, unpinned.get(item.node.name)) for item in plan},
            gates=outcomes(loaded, {item.node.name: item.cached for item in plan if item.cached}),
        )
    except (ConfigError, StoreError, UserError) as error:
        more = str(error).splitlines()
        return Standing({}, more[0] + (f" (and {len(more) - 1} more)" if len(more) > 1 else ""))


def _state(item: Planned, pipeline: str, store: Store, unpinned: Unpinned | None) -> tuple[str, str]:
    if unpinned is not None and (item.pin is not None or unpinned.state != "same"):
        return PINNED if item.pin is not None else STALE, "; ".join([*item.why, str(unpinned)])
    if unpinned is not None:
        return CURRENT, ""
    if store.refs.read(pipeline, item.node.name) is None:
        return NEVER, ""
    if item.cached and item.ref_is_current:
        return CURRENT, ""
    return STALE, "; ".join(item.reasons) or "the store has what the YAML asks for; run points to it"
