"""The estimate of an online training's memory, against trainings whose allocations are counted."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from support.allocations import allocated
from support.online import prompt_data, settings_for, words_to_sort
from support.tiny_model import VOCABULARY, Heard, make_model, workspace

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, read_estimate, write_above
from tunemill.stages.training.ebft.config import EbftConfig
from tunemill.stages.training.grpo.config import GrpoConfig
from tunemill.stages.training.online.estimate_body import estimate
from tunemill.stages.training.online.learning_body import learn

LAYERS, WIDTH, HEADS, GROUPS, TOKENS = 4, 128, 4, 2, 120
SMALL = {"hidden_size": WIDTH, "intermediate_size": 352, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "num_key_value_heads": GROUPS,
         "max_position_embeddings": 256, "initializer_range": 0.02}  # fmt: skip
SETTINGS = {"num_generations": 8, "micro_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": 2,
            "max_completion_length": TOKENS, "save_strategy": "no", "reward_funcs": ["letters.varied"]}  # fmt: skip
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    torch.set_num_threads(1)
    return make_model(tmp_path_factory.mktemp("estimate") / "base", **SMALL)


def estimated(folder, base, config, data=None):
    out = workspace(folder)
    edges = {"grpo.training_data": Above({}, str(data.path))} if data is not None else {}
    write_above(out.data, {"base_model": Above({"base_model": str(base)}), **edges})
    estimate(config, out, Heard().report)
    return read_estimate(out.data)


def trained_and_estimated(folder, base, **keys):
    """Bytes at the peak of a training, with its weights; and the estimate of it."""
    data = prompt_data(folder / "prompts", base, words_to_sort()[:12])
    config = GrpoConfig(**settings_for(folder, **{**SETTINGS, **keys}))
    run = partial(learn, config, Model(base), data, workspace(folder / "trained"), Heard().report)
    weights = sum(4 * one.numel() for one in load_file(base / "model.safetensors").values())
    return weights + allocated(run, folder), estimated(folder / "out", base, config, data)


@pytest.mark.slow
@pytest.mark.parametrize("keys", [{}, pytest.param(LORA, marks=pytest.mark.exhaustive)], ids=["full", "lora"])
def test_near_the_measured_peak(tmp_path, base, keys):
    peak, found = trained_and_estimated(tmp_path, base, **keys)
    assert found.total == pytest.approx(peak, rel=0.2)


@pytest.mark.slow
def test_parts_are_what_arithmetic_says(tmp_path, base):
    def found(name, **keys):
        return estimated(tmp_path / name, base, GrpoConfig(**settings_for(tmp_path, **{**SETTINGS, **keys})))

    # So many side by side need more than a step does.
    one = found("one", completions_at_once=512)
    # Keys and values of each layer, of prompts of sequence_len with their completions; and scores, by 32 bytes.
    cache = 2 * LAYERS * 512 * (512 + TOKENS) * WIDTH // HEADS * GROUPS * 4
    assert one.generation == cache + 512 * VOCABULARY * 32
    assert any("not prepared yet" in note for note in one.notes)
    few = next(saving for saving in one.savings if saving.setting == "pipeline.completions_at_once: 8")
    assert found("few", completions_at_once=8).total == one.total - few.saved
    # The model that training is held to is a second one, which an adapter's base is not.
    held = found("held", beta=0.1)
    assert held.weights == pytest.approx(2 * one.weights)
    assert found("lora", beta=0.1, **LORA).weights < 1.2 * one.weights
    served = found("served", use_vllm=True, vllm_gpu_memory_utilization=0.4)
    assert served.generation == 0 and any("it would take 40%" in note for note in served.notes)
    assert served.server == 0, "a share of main memory is none of a GPU's"
    beside = found("beside", use_vllm=True, vllm_mode="colocate")
    assert any("it would take 30%" in note for note in beside.notes)
    assert found("asked", use_vllm=True, eval_steps=1).generation == one.generation / 8


@pytest.mark.slow
def test_of_features_the_frozen_model_is_counted_and_of_blocks_nothing_is_said(tmp_path, base):
    def config(**keys):
        settings = settings_for(tmp_path, **{**SETTINGS, **keys})
        return EbftConfig(
            **{name: value for name, value in settings.items() if not name.startswith("reward_")}
        )

    weights = sum(4 * one.numel() for one in load_file(base / "model.safetensors").values())
    found = estimated(tmp_path / "full", base, config(ce_coef=0.1))
    assert found.weights == pytest.approx(2 * weights, rel=0.02)
    assert any("ce_coef" in note for note in found.notes)
    with pytest.raises(UserError, match="document's anchors"):
        estimated(tmp_path / "strided", base, config(mode="strided"))
