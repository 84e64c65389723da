"""`tunemill plan --memory`: what each training will take of its device, and which settings would save how much."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunemill.pipelines.commands.listing import listing, readable_bytes, show
from tunemill.pipelines.graph.plan import Planned
from tunemill.pipelines.run.memory import estimates
from tunemill.resources.store import Store
from tunemill.stages.memory import Estimate

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "generation", "server", "total")
# Shown where there is something of them.
SOMETIMES = ("generation", "server")


def memory_json(planned: Sequence[Planned], store: Store) -> dict[str, Any]:
    """Bytes by training; `reason` where nothing can be told."""
    return {
        name: {"reason": found} if isinstance(found, str) else asdict(found)
        for name, found in estimates(planned, store).items()
    }


def show_memory(planned: Sequence[Planned], store: Store) -> None:
    """A table of each training's memory, and one of what would save."""
    found = estimates(planned, store)
    if not found:
        show("\nmemory: no node of this plan trains a model")
    for name, one in found.items():
        if isinstance(one, str):
            show(f"\nmemory of {name}: {one}")
        else:
            show_estimate(name, one)


def show_estimate(name: str, estimate: Estimate) -> None:
    """The parts of one training, whether they fit, and what would save."""
    show(f"\nmemory of {name}, in {estimate.device}")
    parts = [part for part in PARTS if part not in SOMETIMES or getattr(estimate, part)]
    show(listing(("part", "at most"), [(part, readable_bytes(getattr(estimate, part))) for part in parts]))
    for note in estimate.notes:
        show(f"note: {note}")
    show("The total is what all parts take at the worst moment; not every part is at its most then.")
    if estimate.capacity is not None:
        fits = "fits into" if estimate.total <= estimate.capacity else "does not fit into"
        show(f"It {fits} the {readable_bytes(estimate.capacity)} of this machine's device.")
    if estimate.savings:
        show()
        rows = [(one.setting, readable_bytes(one.saved)) for one in estimate.savings]
        show(listing(("setting that would save", "of the total"), rows))
