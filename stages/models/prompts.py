"""Which models take the prompts of LLaMA-Adapter, going by a config.json."""

from collections.abc import Mapping
from typing import Any

# The value of `adapter`, and what PEFT calls it.
LLAMA_ADAPTER = "llama-adapter"
PEFT_TYPE = "ADAPTION_PROMPT"
# Those whose attention PEFT knows.
MODEL_TYPES = ("llama", "mistral", "gpt2")


def fault_of_prompts(stored: Mapping[str, Any]) -> str | None:
    """Why PEFT cannot put prompts into a model of this config.json."""
    kind = stored.get("model_type")
    if kind not in MODEL_TYPES:
        return (
            f"{LLAMA_ADAPTER}: PEFT has it for models of the types {', '.join(MODEL_TYPES)}, and this one is of "
            f"the type {kind}. Use adapter: lora"
        )
    size, heads = stored.get("hidden_size"), stored.get("num_attention_heads")
    width = stored.get("head_dim")
    if isinstance(size, int) and isinstance(heads, int) and isinstance(width, int) and width * heads != size:
        return (
            f"{LLAMA_ADAPTER}: PEFT takes the heads of attention to be as wide together as the model, and here they "
            f"are {heads} times {width}, not {size}. Use adapter: lora"
        )
    return None
