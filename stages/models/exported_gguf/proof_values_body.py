"""Proof of the values: what the head of a file says of the model, beside its config.json."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from transformers import AutoConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tunemill.stages.errors import UserError
from tunemill.stages.models.gguf_reading_body import GgufFile

# What llama.cpp calls a setting.
NAMES = {
    "block_count": "num_hidden_layers", "embedding_length": "hidden_size", "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps", "vocab_size": "vocab_size",
    "attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping",
}  # fmt: skip
# Some of their layers attend within a window, which llama.cpp takes from the file.
WINDOWED = ("gemma2", "gemma3")
CLOSE, CLOSE_FACTORS = 1e-6, 1e-4


def check_values(stored: Mapping[str, Any], file: GgufFile) -> int:
    """How many values were compared. Raises UserError where one is not that of the model with settings `stored`."""
    compared = list(_wanted(stored, str(file.says["general.architecture"])))
    for name, wanted in compared:
        found = file.says.get(name)
        if found is None or abs(found - wanted) > CLOSE * abs(wanted):
            raise UserError(
                f"exported gguf: {name} is {found} in the file, and {wanted} in the model. The file is not the model; "
                f"export it again, and report this if it stays."
            )
    _check_factors(stored, file)
    return len(compared)


def _check_factors(stored: Mapping[str, Any], file: GgufFile) -> None:
    """What frequencies are divided by, where the file says it pair by pair, is what transformers divides them by."""
    rotation = stored.get("rope_parameters") or {}
    name = {"llama3": "rope_freqs.weight", "longrope": "rope_factors_short.weight"}.get(
        rotation.get("rope_type", "")
    )
    if name is None:
        return
    if name not in file.tensors:
        raise UserError(
            f"exported gguf: {name} is not in the file, and the model stretches its rotation by it."
        )
    found = file.numbers(name)
    config = AutoConfig.for_model(**stored)
    inverse, _ = ROPE_INIT_FUNCTIONS[rotation["rope_type"]](config, "cpu", seq_len=1)
    plain = rotation["rope_theta"] ** (-np.arange(len(found)) / len(found))
    if np.abs(plain / inverse.double().numpy() - found).max() > CLOSE_FACTORS * np.abs(found).max():
        raise UserError(
            f"exported gguf: {name}: its factors are not those by which the model stretches its rotation."
        )


def _wanted(stored: Mapping[str, Any], family: str) -> Iterator[tuple[str, float]]:
    for name, key in NAMES.items():
        if stored.get(key) is not None:
            yield f"{family}.{name}", stored[key]
    width = stored.get("head_dim") or stored["hidden_size"] / stored["num_attention_heads"]
    yield f"{family}.attention.key_length", width
    yield f"{family}.attention.value_length", width
    rotation = stored.get("rope_parameters") or {}
    if family in WINDOWED:
        yield f"{family}.attention.sliding_window", stored["sliding_window"]
    if "sliding_attention" in rotation:
        yield f"{family}.rope.freq_base_swa", rotation["sliding_attention"]["rope_theta"]
        rotation = rotation["full_attention"]
    yield f"{family}.rope.freq_base", rotation["rope_theta"]
    yield f"{family}.rope.dimension_count", width * rotation.get("partial_rotary_factor", 1)
    if rotation.get("rope_type") in ("linear", "yarn"):
        yield f"{family}.rope.scaling.factor", rotation["factor"]
