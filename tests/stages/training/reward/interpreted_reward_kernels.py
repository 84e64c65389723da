"""Reward models with kernels, in Triton's interpreter. Run by test_reward_kernels.py."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.pairs import reward_data, thanked
from support.tiny_model import Heard, make_model, workspace

from tunemill.kernels.functions.triton_runtime import interpreted
from tunemill.stages.artifacts import Model
from tunemill.stages.training.reward.body import reward
from tunemill.stages.training.reward.config import RewardConfig

SMALL: dict[str, Any] = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 2, "lora_alpha": 4, "lora_target_linear": True}
SGD: dict[str, Any] = {
    "learning_rate": 1e-2,
    "optimizer": "sgd",
    "lr_scheduler": "constant",
    "logging_steps": 1,
}


@pytest.mark.parametrize(("settings", "expected"), [({}, "swiglu"), (LORA, "lora_mlp")], ids=["full", "lora"])
def test_kernels_change_nothing(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    assert interpreted
    base = Model(make_model(tmp_path / "base", **SMALL))
    data = reward_data(tmp_path / "pairs", thanked(4))
    found = {}
    for kernels in ("auto", "off"):
        out, heard = workspace(tmp_path / kernels), Heard()
        config = RewardConfig(**SGD, micro_batch_size=2, max_steps=2, kernels=kernels, **settings)
        reward(
            config, base_model=base, training_data=data, evaluation_data=None, out=out, report=heard.report
        )
        found[kernels] = heard, load_file(next(out.data.glob("*.safetensors")))
    used = found["auto"][0].summary["kernels"]
    assert expected in used and "rms_norm" in used and "cross_entropy" not in used
    losses = [heard.steps("loss") for heard, _ in found.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, tensor in found["off"][1].items():
        torch.testing.assert_close(found["auto"][1][name], tensor, atol=1e-5, rtol=1e-4)
