"""Frozen layers that wait in main memory while a GPU trains: the same losses, and less of its memory.

On a CPU tests/stages/training/test_layer_offloading.py shows the mechanism; streams, events and pinned memory are here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.gpu import DEVICE, needs_gpu
from support.quantized import make_base, quantized
from support.tiny_model import Heard, make_model, random_rows, tiny_config, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.training.layer_offloading_body import LayerOffloading, waiting_bytes
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

pytestmark = needs_gpu

LAYERS = 12
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3, "max_steps": 6, "logging_steps": 1, "save_strategy": "no", "lora_r": 4, "lora_alpha": 8,
    "lora_target_linear": True,
}  # fmt: skip


def wide() -> Any:
    """A model whose weights are most of what it takes."""
    torch.manual_seed(0)
    config = tiny_config(
        num_hidden_layers=LAYERS, hidden_size=1024, intermediate_size=2816, num_attention_heads=8
    )
    model = AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear")).to(DEVICE).train()


def losses_and_peak(recomputes: bool, waits: bool, steps: int = 4) -> tuple[list[float], int, int]:
    """Losses, the most memory that the later steps took, and what may wait."""
    model = wide()
    if recomputes:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-3)
    away = waiting_bytes(model)
    offloading = LayerOffloading(Heard().report)
    if waits:
        offloading.on_train_begin(None, None, None, model=model)
        assert offloading.layers is not None, "there is a device to offload from"
    ids = torch.randint(3, 400, (2, 64), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    losses = []
    for step in range(steps):
        with offloading.of(model):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        if step == 0:
            torch.cuda.reset_peak_memory_stats()
    peak = torch.cuda.max_memory_allocated()
    offloading.on_train_end()
    assert all(one.device.type == DEVICE for one in model.parameters())
    return losses, peak, away


@pytest.mark.parametrize("recomputes", [False, True], ids=["kept", "recomputed"])
def test_the_losses_are_the_same_and_the_memory_is_less(recomputes: bool) -> None:
    losses, peak, away = losses_and_peak(recomputes, waits=False)
    found, lower, _ = losses_and_peak(recomputes, waits=True)
    assert found == pytest.approx(losses, rel=1e-3) and losses[-1] < losses[0]
    print(f"peak {peak / 1e6:.0f} MB, with waiting layers {lower / 1e6:.0f} MB; {away / 1e6:.0f} MB may wait")
    assert peak - lower > 0.8 * away


@pytest.mark.parametrize("kernels", ["off", "auto"])
@pytest.mark.parametrize("bits", [16, 4])
def test_a_whole_training(bits: int, kernels: str, tmp_path: Path) -> None:
    data = training_data(tmp_path / "rows", random_rows(16))
    settings = {**SETTINGS, "kernels": kernels, "gradient_checkpointing": True}
    if bits == 4:
        base, _ = quantized(tmp_path / "quantized", make_base(tmp_path / "base", num_hidden_layers=4))
        settings |= {"adapter": "qlora", "load_in_4bit": True}
    else:
        base = Model(
            make_model(tmp_path / "base", num_hidden_layers=4, hidden_size=64, intermediate_size=128)
        )
        settings |= {"adapter": "lora", "activation_offloading": True}
    losses = []
    for waits in (False, True):
        heard = Heard()
        config = SftConfig(**settings, layer_offloading=waits)
        sft(config, base, data, None, workspace(tmp_path / str(waits)), heard.report)
        losses.append(heard.steps("loss"))
        said = any("wait in main memory" in event["message"] for event in heard.of("log"))
        assert said is waits
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
