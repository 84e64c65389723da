"""What is proven with several processes, and what is not: that is refused, not done wrongly in silence."""

from collections.abc import Iterator
from typing import Any

ALONE = "Set pipeline.launcher: {kind: python} to train in one"
# Settings that are off at these values, and why they are refused beside.
UNPROVEN: dict[str, tuple[tuple[Any, ...], str]] = {
    "layer_offloading": ((False,), "moves layers that the exchange of gradients expects in their place"),
    "auto_find_batch_size": ((False,), "one process may run out of memory while the others go on"),
    "lisa_n_layers": ((None,), "changes what is trained, which processes agree on once"),
    "tiled_mlp": ((False, None), "computes gradients in pieces, which would be exchanged piece by piece"),
    "llmcompressor": ((None,), "has not been proven with several processes"),
    "trainer_cls": ((None,), "a loss of one's own says nothing of what the other processes hold of a step"),
    "profiler_steps": ((None,), "a trace of one process among several says nothing of the others"),
}


def unproven(config: Any) -> Iterator[tuple[str, str]]:
    """The keys that ask for something unproven with several processes, and what is said of each."""
    for key, (off, reason) in UNPROVEN.items():
        value = getattr(config, key, off[0])
        if value not in off:
            yield key, f"{key}: {reason}"
    if config.looks_at_data:
        yield (
            "peft_init_lora_weights",
            "peft_init_lora_weights: a start from the data is found in one process",
        )
    if config.own_plugins:
        yield "plugins", "plugins: code of one's own says nothing of what the other processes hold of a step"
    if config.chosen_optimizer.in_backward:
        reason = "uses each gradient before it can be exchanged"
        yield "optimizer", f"optimizer: {config.optimizer} {reason}"
