"""Whether a model keeps the rows of a sequence apart is found by trying."""

from typing import Any

import torch
from support.tiny_model import tiny_config
from transformers import AutoModelForCausalLM, MambaConfig, MambaForCausalLM

from tunemill.stages.data.rows.isolation_body import rows_leak


def test_a_leak_is_noticed() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(use_cache=False), attn_implementation="sdpa").eval()
    assert not rows_leak(model, "cpu")

    def sees_everything(**arguments: Any) -> Any:
        return model(**arguments, attention_mask=torch.ones(1, 12))

    assert rows_leak(sees_everything, "cpu")
    torch.manual_seed(0)
    mamba = MambaForCausalLM(
        MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, state_size=4)
    ).eval()

    def without_positions(**arguments: Any) -> Any:
        del arguments["position_ids"]
        return mamba(**arguments)

    assert rows_leak(without_positions, "cpu")
