"""Which models may have their sequences split among processes, and what is said of the others."""

from typing import Any

import pytest
from support.tiny_model import tiny_config
from transformers import AutoModelForCausalLM, GPT2Config, MistralConfig

from tunemill.stages.errors import SettingError
from tunemill.stages.training.context_body import (
    check_splits,
    check_splits_loss,
    check_splits_mean,
)
from tunemill.stages.training.sharding import Sharding

TWO = Sharding(2, context=2)
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


def test_one_that_sees_all_tokens_before_may_be_split_and_whole_sequences_ask_nothing() -> None:
    check_splits(TWO, AutoModelForCausalLM.from_config(tiny_config()))
    other = AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=2, n_head=2))
    for check in (check_splits, check_splits_loss, check_splits_mean):
        check(Sharding(), other)


@pytest.mark.parametrize(
    ("config", "settings", "said"),
    [
        (MistralConfig(**SMALL, sliding_window=8), {}, "layers of sliding_attention"),
        (tiny_config(), {"attn_implementation": "eager"}, "attention by eager"),
        (GPT2Config(n_embd=32, n_layer=2, n_head=2), {}, "has 2 layers, of which accelerate finds 0"),
        (tiny_config(attention_dropout=0.1), {}, "attention_dropout: 0.1"),
        (
            tiny_config(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}),
            {},
            "rope_type: dynamic",
        ),
    ],
)
def test_others_are_refused(config: Any, settings: dict[str, Any], said: str) -> None:
    model = AutoModelForCausalLM.from_config(config, **settings)
    with pytest.raises(SettingError, match=rf"context_parallel_size: {type(model).__name__} .*{said}"):
        check_splits(TWO, model)


def test_a_loss_that_is_no_sum_over_tokens_is_refused() -> None:
    model = AutoModelForCausalLM.from_config(tiny_config())
    with pytest.raises(SettingError, match="adds the balance of its experts"):
        check_splits_loss(TWO, model)
    with pytest.raises(SettingError, match="averages the loss over the tokens"):
        check_splits_mean(TWO, model)
