"""A GGUF file as a model of transformers: under which names, and in which order, its weights are there."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from tunemill.stages.errors import UserError
from tunemill.stages.models.generation_body import GENERATION_FILE
from tunemill.stages.models.gguf_families import family_of, is_read_by_transformers
from tunemill.stages.models.gguf_reading_body import GgufFile

OUTSIDE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
INSIDE = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_qkv": "self_attn.qkv_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
NORMS_AROUND = {
    "ffn_norm": "pre_feedforward_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
INSIDE_OF: Mapping[str, Mapping[str, str]] = {
    "phi3": {"ffn_up": "mlp.gate_up_proj"},
    "gemma2": NORMS_AROUND,
    "gemma3": NORMS_AROUND,
}
# Where q and k stand in pairs, and where norms are written with one added.
IN_PAIRS, WITH_ONE = ("llama", "smollm3"), ("gemma", "gemma2", "gemma3")
ROTATIONS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


def gguf_of(folder: Path) -> Path | None:
    """The one GGUF file of a folder; None where its weights are in other files."""
    found = sorted(folder.glob("*.gguf"))
    return found[0] if len(found) == 1 and not any(folder.glob("*.safetensors")) else None


def source_name(name: str, family: str) -> str:
    """The parameter of transformers that a tensor is made from. Raises UserError for one that is known to nobody."""
    if name in OUTSIDE:
        return OUTSIDE[name]
    found = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    inside = {**INSIDE, **INSIDE_OF.get(family, {})}
    if found is None or found[2] not in inside:
        raise UserError(f"exported gguf: {name}: there is no such tensor in the model.")
    return f"model.layers.{found[1]}.{inside[found[2]]}.{found[3]}"


def pairs_of(name: str, file: GgufFile, family: str) -> int | None:
    """How many heads a tensor has whose rows stand in pairs."""
    found = re.search(r"\.attn_([qk])\.", name) if family in IN_PAIRS else None
    if found is None:
        return None
    return int(file.says[f"{family}.attention.head_count{'_kv' if found[1] == 'k' else ''}"])


def apart(numbers: Any, heads: int) -> Any:
    """Rows 2i and 2i+1 of each head where transformers has them: half a head apart."""
    parts = numbers.reshape(heads, -1, 2, *numbers.shape[1:])
    return np.concatenate([parts[:, :, 0], parts[:, :, 1]], axis=1).reshape(numbers.shape)


def as_parameters(file: GgufFile) -> Iterator[tuple[str, Any]]:
    """The file's weights as transformers wants them: name, and numbers as float32."""
    family = str(file.says["general.architecture"])
    for name in file.tensors:
        if name in ROTATIONS:
            continue
        numbers = file.numbers(name)
        pairs = pairs_of(name, file, family)
        numbers = numbers if pairs is None else apart(numbers, pairs)
        yield (
            source_name(name, family),
            numbers - 1.0 if family in WITH_ONE and name.endswith("norm.weight") else numbers,
        )


def load_gguf(file: GgufFile) -> tuple[Any, str]:
    """The model that a file is, in float32, and who read it: transformers where it knows the family, else we."""
    folder = file.path.parent
    config = AutoConfig.from_pretrained(folder)
    stored = config.to_dict()
    family = family_of(stored)
    if family is not None and is_read_by_transformers(stored, family):
        # transformers takes a name of a file in a folder.
        loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.path.name, dtype=torch.float32)
        return _with_settings(loaded, folder), "transformers"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {name: torch.tensor(numbers) for name, numbers in as_parameters(file)}
    lacking = set(model.state_dict()) - set(weights) - set(model.all_tied_weights_keys)
    if lacking:
        raise UserError(f"exported gguf: the file holds nothing of {', '.join(sorted(lacking)[:3])}.")
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return _with_settings(model, folder), "gguf"


def _with_settings(model: Any, folder: Path) -> Any:
    """With how answers are generated, as the files beside it say."""
    if (folder / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.eval()
