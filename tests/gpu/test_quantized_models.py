"""QLoRA and LoRA over 8 bits, as transformers and bitsandbytes load them on a GPU, with kernels and without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import (
    assert_as_exact,
    assert_same_step,
    make_family,
    packed_batch,
    step,
    with_lora,
)
from support.gpu import DEVICE, needs_gpu
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from tunemill.stages.training.kernels.surroundings_body import use_kernels

pytestmark = needs_gpu

ADAPTERS = {"lora_mlp", "lora_qkv", "lora_o"}
BATCH_LENGTHS = (100, 61)


def loaded(folder: Path, dtype: torch.dtype, **settings: Any) -> Any:
    """A tiny Llama from disk, its linear layers stored by bitsandbytes, with an adapter."""
    sizes = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": 256}
    make_family("llama", dtype=dtype, **sizes).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=BitsAndBytesConfig(**settings), device_map={"": 0}
    )
    return with_lora(model).to(DEVICE)


def batch() -> dict[str, torch.Tensor]:
    return {name: values.to(DEVICE) for name, values in packed_batch(*BATCH_LENGTHS).items()}


def exact_step(folder: Path, quantized: Any) -> Any:
    """A step in float64 of the model whose weights are those that bitsandbytes reads."""
    from bitsandbytes import functional, nn

    dense = with_lora(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)).double().to(DEVICE)
    for name, module in quantized.named_modules():
        if isinstance(module, nn.Linear4bit):
            read = functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
        elif isinstance(module, nn.Linear8bitLt):
            scale_n = module.state.SCB if module.weight.SCB is None else module.weight.SCB
            read = module.weight.data.double() * scale_n.double().unsqueeze(1) / 127
        else:
            continue
        dense.get_submodule(name).weight.data.copy_(read)
    return step(dense, batch())


@pytest.mark.parametrize("nested", [False, True], ids=["single", "double"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_four_bits(tmp_path: Path, dtype: torch.dtype, nested: bool) -> None:
    model = loaded(
        tmp_path,
        dtype,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=nested,
    )
    plain, exact = step(model, batch()), exact_step(tmp_path, model)
    applied = use_kernels(model, ADAPTERS)
    assert set(applied.places) == ADAPTERS, applied.refusals
    if dtype == torch.float32:
        assert_same_step(step(model, batch()), plain, 1e-4)
    assert_as_exact(step(model, batch()), plain, exact, 1.3)


def test_eight_bits(tmp_path: Path) -> None:
    """bitsandbytes rounds the inputs too, so the kernels, which do not, are nearer to the exact step."""
    model = loaded(tmp_path, torch.bfloat16, load_in_8bit=True)
    plain, exact = step(model, batch()), exact_step(tmp_path, model)
    applied = use_kernels(model, ADAPTERS)
    assert set(applied.places) == ADAPTERS, applied.refusals
    assert_as_exact(step(model, batch()), plain, exact, 1.0)
