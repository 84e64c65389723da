"""What the head of a GGUF file says of a model: sizes, how positions are turned, how it is stored."""

import math
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np

from tunemill.stages.models.gguf_families import Family, rotation_of, window_theta_of

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q5_1": gguf.LlamaFileType.MOSTLY_Q5_1,
    "q5_0": gguf.LlamaFileType.MOSTLY_Q5_0,
    "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
    "mxfp4": gguf.LlamaFileType.MOSTLY_MXFP4_MOE,
}


def head_width(stored: Mapping[str, Any]) -> int:
    """How wide one head of attention is."""
    return int(stored.get("head_dim") or stored["hidden_size"] // stored["num_attention_heads"])


def rotated_width(stored: Mapping[str, Any]) -> int:
    """How much of a head is turned."""
    share = rotation_of(stored).get("partial_rotary_factor") or stored.get("partial_rotary_factor") or 1.0
    return int(head_width(stored) * share)


def reach(stored: Mapping[str, Any]) -> int:
    """How many tokens a text may have; where a model attends within a window that llama.cpp has not, those."""
    window = stored.get("sliding_window") if stored["model_type"] in ("mistral", "phi3") else None
    positions = int(stored["max_position_embeddings"])
    return min(positions, window) if window else positions


def add_values(writer: gguf.GGUFWriter, stored: Mapping[str, Any], family: Family, file_type: str) -> None:
    """Add what llama.cpp must know to compute with the weights. `stored`: all settings of the model."""
    writer.add_type("model")
    writer.add_file_type(FILE_TYPES[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(stored["vocab_size"])
    writer.add_context_length(reach(stored))
    writer.add_embedding_length(stored["hidden_size"])
    writer.add_block_count(stored["num_hidden_layers"])
    writer.add_feed_forward_length(stored["intermediate_size"])
    writer.add_head_count(stored["num_attention_heads"])
    writer.add_head_count_kv(stored.get("num_key_value_heads") or stored["num_attention_heads"])
    writer.add_layer_norm_rms_eps(stored["rms_norm_eps"])
    writer.add_key_length(head_width(stored))
    writer.add_value_length(head_width(stored))
    if family.name == "gemma2":
        writer.add_attn_logit_softcapping(stored["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(stored["final_logit_softcapping"])
        writer.add_sliding_window(stored["sliding_window"])
    if family.name == "gemma3":
        if stored.get("final_logit_softcapping"):
            writer.add_final_logit_softcapping(stored["final_logit_softcapping"])
        writer.add_sliding_window(stored["sliding_window"])
        writer.add_rope_freq_base_swa(window_theta_of(stored))
    _add_rotation(writer, stored)


def _add_rotation(writer: gguf.GGUFWriter, stored: Mapping[str, Any]) -> None:
    rotation = rotation_of(stored)
    writer.add_rope_dimension_count(rotated_width(stored))
    writer.add_rope_freq_base(rotation["rope_theta"])
    kind = rotation["rope_type"]
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(rotation["factor"])
    if kind == "yarn":
        writer.add_rope_scaling_orig_ctx_len(_positions_before(stored))
        for key, add in (
            ("beta_fast", writer.add_rope_scaling_yarn_beta_fast),
            ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
        ):
            if rotation.get(key) is not None:
                add(rotation[key])
    if kind == "longrope":
        before = _positions_before(stored)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(before)
        longer = stored["max_position_embeddings"] / before
        usual = math.sqrt(1 + math.log(longer) / math.log(before)) if longer > 1 else 1.0
        writer.add_rope_scaling_attn_factors(rotation.get("attention_factor") or usual)


def _positions_before(stored: Mapping[str, Any]) -> int:
    found = rotation_of(stored).get("original_max_position_embeddings")
    return int(found or stored.get("original_max_position_embeddings") or stored["max_position_embeddings"])


def rotation_tensors(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What llama.cpp divides the frequencies of each pair by, where it is more than one number."""
    rotation = rotation_of(stored)
    if rotation["rope_type"] == "longrope":
        return {
            f"rope_factors_{name}.weight": np.array(rotation[f"{name}_factor"], np.float32)
            for name in ("long", "short")
        }
    if rotation["rope_type"] == "llama3":
        return {"rope_freqs.weight": _llama3_factors(rotation, rotated_width(stored))}
    return {}


def _llama3_factors(rotation: Mapping[str, Any], width: int) -> Any:
    """[W/2]: waves that are short stay, long ones are stretched by `factor`, and those between are in between."""
    waves = 2 * math.pi * rotation["rope_theta"] ** (np.arange(0, width, 2, dtype=np.float64) / width)
    before, factor = rotation["original_max_position_embeddings"], rotation["factor"]
    low, high = rotation["low_freq_factor"], rotation["high_freq_factor"]
    smooth = (before / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < before / high, 1.0, np.where(waves > before / low, factor, between)).astype(
        np.float32
    )
