"""The part of a machine that only helps to train: another one, the first, publishes what comes of it."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunemill.pipelines.graph.nodes import Node
from tunemill.pipelines.graph.plan import resolve
from tunemill.pipelines.graph.provenance import described
from tunemill.pipelines.run.call import make_call
from tunemill.pipelines.run.limits import limited
from tunemill.pipelines.run.materialize import (
    Session,
    device,
    find_inputs,
    log_event,
    looked_at,
    take,
)
from tunemill.pipelines.run.spread import spread_call
from tunemill.pipelines.run.team import as_input
from tunemill.resources.building import WorkFolders
from tunemill.resources.store import Published


def join(session: Session, node: Node, run_id: str, observe: Callable[[dict[str, Any]], None]) -> bool:
    """Compute this machine's part of a node whose inputs are in its store. False where the result is there already.

    What is asked for again is computed again, as the first machine does it. Raises what `materialize` raises.
    """
    started = time.monotonic()
    session.begun.setdefault(run_id, started)
    inputs = find_inputs(session, node, run_id)
    node = described(session.pipeline, node, inputs)
    resolved = resolve(node, session.pipeline.document, session.store, inputs)

    def say(message: str) -> None:
        observe(log_event(message))

    if node.name not in session.refresh and isinstance(take(session, node, resolved, say), Published):
        return False
    inputs |= looked_at(session, node, run_id)
    inputs = {name: as_input(session.store, node, name, given, say) for name, given in inputs.items()}
    observe({"type": "start", "key": resolved.key})
    with (
        tempfile.TemporaryDirectory(dir=session.store.root, prefix="joined_") as folder,
        device(session, node, observe),
    ):
        # They are dropped. Checkpoints are those of the first machine, where this one sees them.
        scratch = WorkFolders(Path(folder))
        scratch.make()
        call = make_call(node, inputs, scratch, session.store.root)
        call = spread_call(call, node, session.pipeline, resolved.key, joins=True)
        session.launch(limited(call, session.pipeline.limits, session.begun[run_id]), observe)
    say("the first machine has the result")
    observe({"type": "done", "state": "computed", "seconds": time.monotonic() - started})
    return True
