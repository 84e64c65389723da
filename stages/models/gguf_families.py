"""Which models llama.cpp computes as transformers does, going by a config.json."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Family:
    """What llama.cpp calls models of a class, and how it wants their weights.

    `turned`: a rotation takes two rows of q or k that stand beside each other, where transformers has them half a head
    apart. `plus_one`: what a norm multiplies by is the weight and one, and the file holds the sum. `one_head`: the
    output head is the embeddings, whatever else there is. `scalings`: the kinds of rotation that are known.
    `read_by_transformers`: `from_pretrained(gguf_file=)` reads the file too, as long as settings that it does
    not look for have the values in `unread`.
    """

    name: str
    turned: bool = False
    plus_one: bool = False
    one_head: bool = False
    scalings: tuple[str, ...] = ("default", "linear", "yarn")
    activation: str = "silu"
    read_by_transformers: bool = True
    unread: Mapping[str, Any] = field(default_factory=dict)


LLAMA = Family("llama", turned=True, scalings=("default", "linear", "yarn", "llama3"))
GELU = "gelu_pytorch_tanh"
FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": LLAMA,
    "MistralForCausalLM": LLAMA,
    "Qwen2ForCausalLM": Family("qwen2"),
    "Qwen3ForCausalLM": Family("qwen3", unread={"head_dim": 128}),
    "GemmaForCausalLM": Family(
        "gemma",
        plus_one=True,
        one_head=True,
        scalings=("default",),
        activation=GELU,
        read_by_transformers=False,
    ),
    "Gemma2ForCausalLM": Family(
        "gemma2",
        plus_one=True,
        one_head=True,
        scalings=("default",),
        activation=GELU,
        unread={
            "head_dim": 256,
            "query_pre_attn_scalar": 256,
            "attn_logit_softcapping": 50.0,
            "sliding_window": 4096,
        },
    ),
    "Gemma3ForCausalLM": Family(
        "gemma3",
        plus_one=True,
        scalings=("default", "linear"),
        activation=GELU,
        unread={"query_pre_attn_scalar": 256, "final_logit_softcapping": None},
    ),
    "Phi3ForCausalLM": Family("phi3", scalings=("default", "longrope")),
    "SmolLM3ForCausalLM": Family("smollm3", turned=True, read_by_transformers=False),
}
# Every fourth layer of a SmolLM3 rotates nothing; llama.cpp takes no other number.
UNROTATED = 4
# Every sixth layer of a Gemma 3 attends to everything, the others within a window.
UNWINDOWED = 6
# By so many layers llama.cpp knows the largest models of these families, which scale attention otherwise.
LARGEST: Mapping[str, int] = {"gemma2": 46, "gemma3": 62}
# How fast positions are turned within a window, where nothing else is said.
WINDOW_THETA = 10000.0


def family_of(stored: Mapping[str, Any]) -> Family | None:
    """The family of the model that a config.json describes."""
    named = [str(name) for name in stored.get("architectures") or []]
    return next((FAMILIES[name] for name in named if name in FAMILIES), None)


def is_read_by_transformers(stored: Mapping[str, Any], family: Family) -> bool:
    """Whether transformers reads all that its own computation with the model hangs on out of a GGUF file."""
    read = all(stored.get(key) == value for key, value in family.unread.items())
    usual = rotation_of(stored)["rope_type"] == "default" and window_theta_of(stored) == WINDOW_THETA
    return family.read_by_transformers and read and usual


def rotation_of(stored: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are turned, in today's words: `rope_type`, `rope_theta`, and what goes with the type."""
    found = dict(stored.get("rope_parameters") or stored.get("rope_scaling") or {})
    # Where layers with a window turn otherwise, those without one.
    found = dict(found.get("full_attention", found))
    found.setdefault("rope_theta", stored.get("rope_theta", 10000.0))
    found.setdefault("rope_type", found.pop("type", "default"))
    return found


def window_theta_of(stored: Mapping[str, Any]) -> float:
    """The `rope_theta` of layers that attend within a window, where these have one of their own."""
    inside = (stored.get("rope_parameters") or {}).get("sliding_attention") or {}
    return float(inside.get("rope_theta", stored.get("rope_local_base_freq", WINDOW_THETA)))


def fault_of_export(stored: Mapping[str, Any]) -> str | None:
    """Why no GGUF file can be written of the model that a config.json describes."""
    family = family_of(stored)
    if family is None:
        named = ", ".join(str(name) for name in stored.get("architectures") or ["nothing"])
        return (
            f"pipeline.export: gguf is written of {', '.join(name.removesuffix('ForCausalLM') for name in FAMILIES)}, "
            f"and the model is {named}. Take it out of export"
        )
    if stored.get("quantization_config") is not None:
        return "pipeline.export: the weights are quantized already. Start from a model in full precision"
    reasons = (_rotation(stored, family), _attention(stored, family), _layers(stored, family))
    reason = next((reason for reason in reasons if reason), None)
    return None if reason is None else f"pipeline.export: llama.cpp does not compute this model: {reason}"


def _rotation(stored: Mapping[str, Any], family: Family) -> str | None:
    rotation = rotation_of(stored)
    kind = rotation["rope_type"]
    if kind not in family.scalings:
        return f"its positions are turned by rope_type: {kind}, and {family.name} knows {', '.join(family.scalings)}"
    if kind == "yarn" and any(rotation.get(key) is not None for key in ("attention_factor", "mscale")):
        return "its yarn names a factor of attention of its own"
    inside = (stored.get("rope_parameters") or {}).get("sliding_attention") or {}
    if inside.get("rope_type", "default") != "default":
        return (
            f"positions within a window are turned by rope_type: {inside['rope_type']}, and default is taken"
        )
    return None


def _attention(stored: Mapping[str, Any], family: Family) -> str | None:
    if stored.get("use_sliding_window"):
        return "use_sliding_window: each layer attends to everything there"
    width = stored.get("head_dim")
    if family.name in LARGEST and width is not None:
        largest = stored.get("num_hidden_layers") == LARGEST[family.name]
        usual = stored["hidden_size"] // stored["num_attention_heads"] if largest else width
        if stored.get("query_pre_attn_scalar", 256) != usual:
            return (
                f"query_pre_attn_scalar is {stored.get('query_pre_attn_scalar', 256)}, and {usual} is taken"
            )
    if family.name == "gemma3" and (reason := _windows(stored)):
        return reason
    fills = width is None or width * stored["num_attention_heads"] == stored["hidden_size"]
    if family.name in ("qwen2", "phi3") and not fills:
        return "its heads of attention are not as wide together as the model"
    return None


def _windows(stored: Mapping[str, Any]) -> str | None:
    """Why a Gemma 3 attends otherwise than llama.cpp has it."""
    for key in ("attn_logit_softcapping", "attention_bias", "use_bidirectional_attention"):
        if stored.get(key):
            return f"{key} is {stored[key]}, and no Gemma 3 has that there"
    kinds = ["sliding_attention", "full_attention"]
    usual = [kinds[(layer + 1) % UNWINDOWED == 0] for layer in range(stored.get("num_hidden_layers") or 0)]
    named = stored.get("layer_types")
    given = stored.get("sliding_window_pattern")
    if (named is not None and list(named) != usual) or (named is None and given not in (None, UNWINDOWED)):
        return (
            f"each {UNWINDOWED}th layer attends to everything there, and here other layers do (layer_types)"
        )
    return None


def _layers(stored: Mapping[str, Any], family: Family) -> str | None:
    activation = stored.get("hidden_activation") or stored.get("hidden_act") or family.activation
    # Gemma's configs say `gelu` and mean the approximation.
    if activation != family.activation and not (family.activation == GELU and activation == "gelu"):
        return f"its activation is {activation}, and {family.activation} is taken"
    if family.one_head and stored.get("tie_word_embeddings") is False:
        return "its output head is not its embeddings, and no other is read"
    if family.name == "smollm3":
        rotated = stored.get("no_rope_layers")
        usual = [int((layer + 1) % UNROTATED != 0) for layer in range(stored.get("num_hidden_layers") or 0)]
        if rotated is not None and list(rotated) != usual:
            return f"each {UNROTATED}th layer rotates nothing there, and here other layers do not (no_rope_layers)"
    return None
