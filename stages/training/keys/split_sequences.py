"""What is proven where processes split each sequence among them (`context_parallel_size`); the rest is refused."""

from collections.abc import Iterator
from typing import Any

KEY = "context_parallel_size"
PACKED = (
    "PyTorch splits sequences of one row each: in one with several they would see each other. Set it to false"
)
# Settings that are off at these values, and why they are refused beside.
REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "sample_packing": ((False, None), PACKED),
    "batch_flattening": ((False, None, "auto"), PACKED),
    "eval_sample_packing": ((False, None), PACKED),
    "use_eaft": ((False, None), "its weights are those of whole sequences. Remove one"),
    "use_pose": ((False, None), "positions that jump have not been proven beside. Remove one"),
    "torch_compile": ((False,), "layers that are compiled have not been proven beside. Remove one"),
    "load_in_4bit": ((False,), "a base in 4 bits has not been proven beside. Remove one"),
    "generate_samples": ((False, None), "a model whose sequences are split writes no text. Remove one"),
    "do_bench_eval": ((False, None), "a model whose sequences are split answers nothing. Remove one"),
}
WHOLE_LOSS = (
    "the loss of this method is made of whole sequences, and splitting them is proven for supervised fine-tuning only. "
    "Take it out; gradient_checkpointing: true and fsdp_version: 2 make room for long sequences"
)


def unproven_beside_splitting(config: Any) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys that ask for what cannot be computed of parts of sequences, and what is said of each."""
    size = config.sharding.context
    if size == 1:
        return
    if not config.splits_sequences:
        yield (KEY,), f"{KEY}: {size}: {WHOLE_LOSS}"
    for key, (off, reason) in REFUSED.items():
        value = getattr(config, key, off[0])
        if value not in off:
            yield (key, KEY), f"{key}: {value} with {KEY}: {size}: {reason}"
    if config.attention not in (None, "sdpa"):
        yield (
            ("attn_implementation", KEY),
            f"{config.attention} with {KEY}: {size}: PyTorch splits its own attention. Write sdpa",
        )
