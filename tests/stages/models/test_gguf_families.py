"""Which models llama.cpp computes otherwise is known by their config.json, before anything runs."""

import pytest
from support.gguf_files import CONFIGS

from tunemill.stages.models.gguf_families import (
    family_of,
    fault_of_export,
    is_read_by_transformers,
    rotation_of,
    window_theta_of,
)

NAMED = {"architectures": ["Gemma3ForCausalLM"]}
# A config.json of before transformers 5.
OLD = {
    **NAMED, "hidden_size": 1152, "num_attention_heads": 4, "num_hidden_layers": 26, "head_dim": 256,
    "query_pre_attn_scalar": 256, "sliding_window": 512, "sliding_window_pattern": 6, "rope_theta": 1000000,
    "rope_local_base_freq": 10000, "rope_scaling": None, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip


@pytest.mark.parametrize("stored", [OLD, {**CONFIGS["gemma3"].to_dict(), **NAMED}])
def test_a_gemma_3_of_text_is_exported(stored):
    assert fault_of_export(stored) is None


def test_how_positions_are_turned_is_found_in_old_settings_and_new_ones():
    assert (rotation_of(OLD)["rope_theta"], window_theta_of(OLD)) == (1000000, 10000.0)
    new = CONFIGS["gemma3"].to_dict()
    assert (rotation_of(new)["rope_type"], rotation_of(new)["factor"], window_theta_of(new)) == (
        "linear",
        8.0,
        500.0,
    )


@pytest.mark.parametrize(
    ("change", "read"),
    [({}, True), ({"query_pre_attn_scalar": 128}, False), ({"rope_local_base_freq": 500}, False),
     ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, False)],
)  # fmt: skip
def test_transformers_reads_what_it_looks_for(change, read):
    stored = OLD | change
    assert is_read_by_transformers(stored, family_of(stored)) is read


LAYERS = ["sliding_attention"] * 5 + ["full_attention"]
FAULTS = [
    ({"sliding_window_pattern": 2}, "each 6th layer attends to everything there, and here other layers do"),
    ({"layer_types": LAYERS[::-1] * 4 + LAYERS[:2]}, "each 6th layer attends to everything there"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0, and no Gemma 3 has that there"),
    ({"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ({"query_pre_attn_scalar": 128}, "query_pre_attn_scalar is 128, and 256 is taken"),
    ({"num_hidden_layers": 62}, "query_pre_attn_scalar is 256, and 288 is taken"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type: yarn, and gemma3 knows default, linear"),
    ({"rope_parameters": {"full_attention": {}, "sliding_attention": {"rope_type": "linear"}}}, "within a window"),
    ({"architectures": ["Gemma3ForConditionalGeneration"]}, "the model is Gemma3ForConditionalGeneration"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), FAULTS)
def test_a_gemma_3_that_is_computed_otherwise_is_refused(change, said):
    assert said in (fault_of_export(OLD | change) or "")
