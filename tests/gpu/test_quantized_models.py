"""QLoRA and LoRA over 8 bits, as transformers and bitsandbytes load them on a GPU, with kernels and without."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import assert_same_step, make_family, packed_batch, step, with_lora
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


@pytest.mark.parametrize("nested", [False, True], ids=["single", "double"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 5e-2)], ids=["float32", "bfloat16"]
)
def test_four_bits(tmp_path: Path, dtype: torch.dtype, tolerance: float, nested: bool) -> None:
    model = loaded(
        tmp_path,
        dtype,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=nested,
    )
    plain = step(model, batch())
    applied = use_kernels(model, ADAPTERS)
    assert set(applied.places) == ADAPTERS, applied.refusals
    assert_same_step(step(model, batch()), plain, tolerance)


def test_eight_bits(tmp_path: Path) -> None:
    model = loaded(tmp_path, torch.bfloat16, load_in_8bit=True)
    plain = step(model, batch())
    applied = use_kernels(model, ADAPTERS)
    print(f"kernels over 8 bits: in {dict(applied.places)}, not in {applied.refusals}")
    assert_same_step(step(model, batch()), plain, 5e-2)
