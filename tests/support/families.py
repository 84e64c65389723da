"""Tiny causal language models of several families, with adapters, and what a training step does to them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GlmConfig,
    GPT2Config,
    GptOssConfig,
    GraniteConfig,
    LlamaConfig,
    Ministral3Config,
    MistralConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

VOCABULARY = 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "mistral": (MistralConfig, {"sliding_window": 4}),
    "ministral3": (Ministral3Config, {"head_dim": 8}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 8}),
    "gemma": (GemmaConfig, {"head_dim": 8}),
    "gemma2": (
        Gemma2Config,
        {"head_dim": 8, "final_logit_softcapping": 2.0, "sliding_window": 4, "num_hidden_layers": 2},
    ),
    "phi3": (Phi3Config, {}),
    "granite": (GraniteConfig, {"logits_scaling": 2.0, "residual_multiplier": 0.3}),
    "cohere": (CohereConfig, {}),
    "glm": (GlmConfig, {"head_dim": 8}),
    "mixtral": (MixtralConfig, {"num_local_experts": 2}),
    "gpt_oss": (GptOssConfig, {"head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1}),
    "gpt2": (GPT2Config, {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}),
}
LORA: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def make_family(name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A model in training mode whose weights are far from their initial zeros and ones."""
    config, settings = CONFIGS[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**{**SIZES, **settings, **changes}))
    shake(model)
    return model.to(dtype).train()


def with_lora(model: Any, **changes: Any) -> Any:
    """The model with an adapter that has an effect."""
    adapted = get_peft_model(model, LoraConfig(**{**LORA, **changes}))
    shake(adapted, only="lora_")
    return adapted.train()


def shake(model: nn.Module, *, only: str = "") -> None:
    """Add noise to every parameter whose name contains `only`."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if only in name and parameter.is_floating_point():
            noise = 0.15 * torch.randn(parameter.shape, generator=generator)
            parameter.data.add_(noise.to(parameter))


def packed_batch(*lengths: int) -> dict[str, Tensor]:
    """Rows one behind the other, kept apart by position ids, with some labels ignored."""
    total = sum(lengths)
    generator = torch.Generator().manual_seed(2)
    input_ids = torch.randint(1, VOCABULARY, (1, total), generator=generator)
    positions = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    labels = input_ids.clone()
    labels[positions == 0] = -100
    return {"input_ids": input_ids, "position_ids": positions, "labels": labels}


def step(model: Any, batch: Mapping[str, Tensor], **settings: Any) -> tuple[float, dict[str, Tensor]]:
    """The loss of a batch and the gradient of every parameter that gets one."""
    model.zero_grad(set_to_none=True)
    loss = model(**batch, use_cache=False, **settings).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return loss.item(), gradients


Step = tuple[float, dict[str, Tensor]]


def errors(actual: Step, expected: Step) -> dict[str, float]:
    """Relative error of the loss and of each gradient."""
    assert actual[1].keys() == expected[1].keys()
    assert expected[1], "nothing is trained"
    found = {"loss": abs(actual[0] - expected[0]) / abs(expected[0])}
    for name, right in expected[1].items():
        difference = (actual[1][name].double() - right.double()).norm()
        found[name] = float(difference / right.double().norm().clamp_min(1e-12))
    return found


def assert_same_step(actual: Step, expected: Step, tolerance: float = 2e-5) -> None:
    """Loss and gradients agree, each gradient relative to its own size."""
    wrong = {name: error for name, error in errors(actual, expected).items() if not error <= tolerance}
    assert not wrong, wrong


def assert_as_exact(actual: Step, plain: Step, exact: Step, factor: float) -> None:
    """`actual` is at most `factor` times as far from `exact` as `plain` is: in half precision both round."""
    of_plain = sum(errors(plain, exact).values())
    of_actual = sum(errors(actual, exact).values())
    assert of_actual <= factor * of_plain, (of_actual, of_plain)


@contextmanager
def autocast(dtype: torch.dtype | None) -> Iterator[None]:
    """CPU autocast, or none."""
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        yield
