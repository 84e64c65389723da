"""Which tensors of a model's files are weights of linear layers: by their names and shapes, and sizes in config.json.

Nothing here looks at modules, so that what was quantized can be compared with it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunemill.stages.models.weights import StoredTensor, tensors_of_model

# `router`: what chooses among experts, which some families have as linear layer and others as bare parameter.
Kind = Literal["linear", "experts", "router", "embedding", "other"]
FLOATS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
COUNTS_OF_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
# What the names of tables of tokens, and of heads over these, have in them.
TABLES = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
HEADS = ("lm_head", "embed_out", "score", "classifier")


@dataclass(frozen=True)
class Sizes:
    """What a config.json says, anywhere in it: how many tokens and experts, and the type of numbers."""

    tokens: frozenset[int]
    experts: frozenset[int]
    dtype: str | None

    @classmethod
    def of(cls, folder: Path) -> "Sizes":
        """Those of a model folder."""
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        found = list(_numbers(config))
        tokens = frozenset(value for name, value in found if name == "vocab_size")
        experts = frozenset(value for name, value in found if name in COUNTS_OF_EXPERTS)
        dtype = config.get("dtype") or config.get("torch_dtype")
        return cls(tokens, experts, DTYPES.get(str(dtype)))


def kinds(folder: Path) -> dict[str, tuple[Kind, StoredTensor]]:
    """Name -> kind and place of every tensor of a model folder."""
    sizes = Sizes.of(folder)
    return {name: (kind_of(tensor, sizes), tensor) for name, tensor in tensors_of_model(folder).items()}


def kind_of(tensor: StoredTensor, sizes: Sizes) -> Kind:
    """Matrices within numbered layers are linear ones, and experts come one by one, or all of a layer as [E, ., .]."""
    parts = tensor.name.split(".")
    if tensor.dtype not in FLOATS:
        return "other"
    if of_experts(tensor, sizes):
        return "experts"
    if len(tensor.shape) != 2 or parts[-1] != "weight" or len(parts) < 2:
        return "other"
    if tensor.shape[0] in sizes.experts and ("router" in parts or parts[-2] in ("gate", "router")):
        return "router"
    in_layer = any(part.isdigit() for part in parts)
    if not in_layer and any(part in TABLES for part in parts) and tensor.shape[0] in sizes.tokens:
        return "embedding"
    of_tokens = not in_layer and (tensor.shape[0] in sizes.tokens or any(part in HEADS for part in parts))
    return "other" if of_tokens or "embed" in tensor.name or "wpe" in parts else "linear"


def of_experts(tensor: StoredTensor, sizes: Sizes) -> bool:
    """Whether it holds weights of one expert, or of all of a layer. Biases of all have two dimensions and no ending."""
    parts = tensor.name.split(".")
    if len(tensor.shape) == 3:
        in_layer = any(part.isdigit() for part in parts)
        return "experts" in parts or (in_layer and tensor.shape[0] in sizes.experts and min(tensor.shape) > 1)
    return "experts" in parts and len(tensor.shape) == 2 and parts[-1] == "weight"


def saved_names(name: str) -> tuple[str, ...]:
    """What a tensor may be called when its model is saved: files without the prefix of the model's body get it."""
    return name, f"model.{name}", name.partition(".")[2]


def layer_of(name: str) -> str:
    """The name up to the number of the layer; of what is in none, the whole name."""
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[: place + 1])


def _parts(config: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(config, Mapping):
        yield config
        for value in config.values():
            yield from _parts(value)


def _numbers(config: Any) -> Iterator[tuple[str, int]]:
    for part in _parts(config):
        yield from ((name, value) for name, value in part.items() if isinstance(value, int))
