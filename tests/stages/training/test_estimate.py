"""The estimate of a training's memory against trainings whose allocations are counted."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.allocations import allocated
from support.llama4 import make_llama4
from support.tiny_model import VOCABULARY, Heard, make_model, training_data, workspace
from support.trained_families import FAMILIES, make_folder

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import UserError
from tunemill.stages.memory import Above, Estimate, read_estimate, write_above
from tunemill.stages.training.dpo.config import DpoConfig
from tunemill.stages.training.estimate_body import Plan, estimate, measured, plan_of, variants
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.reward.config import RewardConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LENGTH = 256
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": LENGTH}  # fmt: skip
WIDE_HEAD = {
    "hidden_size": 64,
    "num_attention_heads": 2,
    "vocab_size": 16000,
    "max_position_embeddings": LENGTH,
}
LORA = {"adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True}
# The model, and how it is trained: each is ruled by another part.
SHAPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "activations": (SMALL, {"micro_batch_size": 2, "sample_packing": True, "bf16": False}),
    "grouped, tied, checkpointed, 8 bits": (
        {**SMALL, "num_key_value_heads": 2, "tie_word_embeddings": True},
        {"micro_batch_size": 3, "bf16": True, "gradient_checkpointing": True, "optimizer": "adamw_8bit",
         "gradient_accumulation_steps": 2},
    ),
    "adapter": (SMALL, {"bf16": "full", "optimizer": "adamw_torch", "pad_to_sequence_len": True, **LORA}),
    "logits": (WIDE_HEAD, {"micro_batch_size": 4, "bf16": False, "optimizer": "sgd"}),
    "loss in chunks": (
        WIDE_HEAD, {"micro_batch_size": 4, "bf16": False, "optimizer": "adafactor", "chunked_cross_entropy": True}
    ),
    "weights": (
        {**SMALL, "hidden_size": 512, "intermediate_size": 2048}, {"bf16": False, "max_grad_norm": 0.0}
    ),
    "quantization-aware": (SMALL, {"bf16": False, "qat": {"weight_dtype": "int4", "activation_dtype": "int8"}}),
}  # fmt: skip

FAST = ("adapter", "qwen3_moe", "lfm2")
IN_CI = ("activations", "quantization-aware", "gpt_oss", "gemma3_text")
# Of a shape or a family; the others are exhaustive.
MARKS = {**dict.fromkeys(FAST, ()), **dict.fromkeys(IN_CI, pytest.mark.slow)}


def config_of(**settings: Any) -> SftConfig:
    return SftConfig(**{"learning_rate": 1e-3, "max_steps": 2, "sequence_len": LENGTH, **settings})


def above(base: Path, **more: Above) -> dict[str, Above]:
    return {"base_model": Above({"base_model": str(base)}), **more}


def peak_of_training(config: SftConfig, base: Path, folder: Path) -> int:
    """Bytes at the peak, with the weights, which other threads read."""
    rows = torch.randint(3, VOCABULARY, (24, LENGTH), generator=torch.Generator().manual_seed(0)).tolist()
    data = training_data(folder / "rows", [(row, row) for row in rows])
    run = partial(sft, config, Model(base), data, None, workspace(folder / "trained"), Heard().report)
    size = 2 if config.bf16 in (True, "full") else 4
    weights = sum(size * one.numel() for one in load_file(base / "model.safetensors").values())
    return weights + allocated(run, folder)


@pytest.mark.parametrize(
    "shape", [pytest.param(name, marks=MARKS.get(name, pytest.mark.exhaustive)) for name in SHAPES]
)
def test_within_fifteen_percent_of_the_measured_peak(shape: str, tmp_path: Path) -> None:
    model, settings = SHAPES[shape]
    base, config = make_model(tmp_path / "base", **model), config_of(**settings)
    found, peak = measured(plan_of(config, above(base))[0]), peak_of_training(config, base, tmp_path)
    assert peak > 15_000_000, "small things would count"
    assert found.total == pytest.approx(peak, rel=0.15)


def estimated(config: Any, folder: Path, nodes: dict[str, Above]) -> Estimate:
    out = workspace(folder)
    write_above(out.data, nodes)
    estimate(config, out=out, report=Heard().report)
    return read_estimate(out.data)


def test_nothing_is_advised_that_prompts_refuse(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    prompts = {"adapter": "llama-adapter", "peft_adapter": {"layers": 1, "len": 4}}
    found = estimated(config_of(bf16=False, **prompts), tmp_path / "out", above(base))
    size = json.loads((base / "config.json").read_text())["hidden_size"]
    assert found.gradients == 4 * (4 * size + 1)
    assert not [one for one in found.savings if "load_in" in one.setting or "adapter" in one.setting]


def test_parts_are_what_arithmetic_says_and_savings_begin_with_the_largest(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    weights = sum(one.numel() for one in load_file(base / "model.safetensors").values())
    found = estimated(config_of(micro_batch_size=2, bf16=False), tmp_path / "out", above(base))
    assert found.weights == pytest.approx(4 * weights, rel=0.01)
    assert found.gradients == 4 * weights and found.optimizer == 2 * 4 * weights
    assert 4 * 2 * LENGTH * VOCABULARY <= found.logits <= 4 * 4 * 2 * LENGTH * VOCABULARY
    saved = [one.saved for one in found.savings]
    assert saved == sorted(saved, reverse=True) and min(saved) > 0
    assert {one.setting.partition(":")[0] for one in found.savings} >= {
        "micro_batch_size", "gradient_checkpointing", "adapter", "optimizer",
    }  # fmt: skip
    assert any("not prepared yet" in note for note in found.notes)
    # What a setting saves is what it saves: the next estimate is that much smaller.
    said = next(one.saved for one in found.savings if one.setting == "gradient_checkpointing: true")
    turned = config_of(micro_batch_size=2, bf16=False, gradient_checkpointing=True)
    assert found.total - measured(plan_of(turned, above(base))[0]).total == said


def test_a_quantized_base_takes_as_many_bits_as_it_has(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    sizes = {}
    for name, settings in {"16": {}, "8": {"load_in_8bit": True}, "4": {"load_in_4bit": True}}.items():
        more = {"quantized_base": Above(settings)} if settings else {}
        sizes[name] = measured(plan_of(config_of(bf16=True, **LORA), above(base, **more))[0]).weights
    linear = sum(
        one.numel() for name, one in load_file(base / "model.safetensors").items()
        if "proj" in name
    )  # fmt: skip
    assert sizes["16"] - sizes["8"] == pytest.approx(linear, rel=0.03)
    assert sizes["8"] - sizes["4"] == pytest.approx(linear / 2, rel=0.05)


def test_frozen_weights_have_neither_gradient_nor_state(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    config = config_of(bf16=False, unfrozen_parameters=["^lm_head.weight$[:8]"])
    found = measured(plan_of(config, above(base))[0])
    assert found.gradients == 4 * VOCABULARY * 256 and found.optimizer == 2 * found.gradients


def test_prepared_data_says_how_long_sequences_are(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", max_position_embeddings=LENGTH)
    data = training_data(tmp_path / "data", [([5] * 20, [5] * 20), ([5] * 32, [5] * 32)])
    nodes = above(base, training_data=Above({}, str(data.path)))
    plan, notes = plan_of(config_of(), nodes)
    assert plan.shape.length == 32 and not notes
    assert plan_of(config_of(sample_packing=True), nodes)[0].shape.length == LENGTH


def test_overrides_of_the_models_config_count(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    settings = {"base_model": str(base), "overrides_of_model_config": {"num_hidden_layers": 5}}
    assert plan_of(config_of(), {"base_model": Above(settings)})[0].model_config.num_hidden_layers == 5
    # They are in the artifact's config.json already.
    made = Above({**settings, "base_model": "owner/name"}, str(base))
    assert plan_of(config_of(), {"base_model": made})[0].model_config.num_hidden_layers == 2


def test_a_fetched_model_is_read_before_it_is_taken_over(tmp_path: Path) -> None:
    nodes = {"base_model": Above({}), "base_model.upstream": Above({}, str(make_model(tmp_path / "base")))}
    assert plan_of(config_of(), nodes)[0].model_config.num_hidden_layers == 2


def test_a_config_of_the_hub_is_read_in_place_of_the_models(tmp_path: Path) -> None:
    base, other = make_model(tmp_path / "base"), make_model(tmp_path / "other", num_hidden_layers=1)
    nodes = above(base)
    found = plan_of(config_of(), {**nodes, "base_model.config_files": Above({}, str(other))})[0]
    assert found.model_config.num_hidden_layers == 1
    settings = {"repository": "hf://models/owner/name"}
    with pytest.raises(UserError, match=r"owner/name: its config\.json is not on this machine yet"):
        plan_of(config_of(), {**nodes, "base_model.config_files": Above(settings)})


def test_what_is_not_counted_is_said(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    notes = plan_of(config_of(tiled_mlp=True, pad_to_sequence_len=True), above(base))[1]
    assert notes == ["tiled_mlp saves activations, which is not counted"]


def test_a_model_that_is_not_here_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base_model: owner/name: .* not on this machine yet\. Run .*--only"):
        estimated(config_of(), tmp_path / "out", {"base_model": Above({"base_model": "owner/name"})})


def test_methods_on_pairs_hold_two_sequences_for_each(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    plan, notes = plan_of(OrpoConfig(learning_rate=1e-3, micro_batch_size=3), above(base))
    assert plan.shape.rows == 6 and "two sequences" in notes[0]
    assert measured(plan).total > 0


def test_a_reference_beside_each_step_is_a_second_model(tmp_path: Path) -> None:
    base = above(make_model(tmp_path / "base"))

    def plan(**settings: Any) -> Plan:
        few = {"learning_rate": 1e-3, "micro_batch_size": 1, "bf16": False, "sequence_len": 16}
        return plan_of(DpoConfig(**few, **settings), base)[0]

    stored, copied, follows = plan(), plan(precompute_ref_log_probs=False), plan(sync_ref_model=True)
    one, two = measured(stored), measured(copied)
    assert two.weights == 2 * one.weights and two.total - one.total == one.weights
    assert replace(two, weights=one.weights, total=one.total) == one
    assert measured(follows) == two
    turned = dict(variants(copied))
    assert not turned["without precompute_ref_log_probs: false"].config.holds_a_copy
    assert not turned["adapter: lora (lora_r: 16, every linear layer)"].config.holds_a_copy
    # A reference that follows has no adapter beside it, and cannot be stored before.
    assert not [name for name, _ in variants(follows) if "adapter" in name or "precompute" in name]


def test_a_head_that_scores_takes_the_place_of_the_output_head(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    config = RewardConfig(learning_rate=1e-3, micro_batch_size=2, bf16=False)
    data = Above({"sequence_len": LENGTH})
    plan, _ = plan_of(config, above(base, training_data=data))
    found = measured(plan)
    weights = load_file(base / "model.safetensors")
    body = sum(one.numel() for name, one in weights.items() if name != "lm_head.weight")
    assert found.gradients == 4 * (body + 256) and found.logits == 0
    assert (plan.shape.rows, plan.shape.length) == (4, LENGTH)
    adapted, _ = plan_of(config.model_copy(update=LORA), above(base, training_data=data))
    assert 4 * 256 < measured(adapted).gradients < found.gradients / 10


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=MARKS.get(name, pytest.mark.exhaustive)) for name in FAMILIES]
)
def test_every_family_has_an_estimate(family: str, tmp_path: Path) -> None:
    base = make_folder(family, tmp_path / "base")
    config = config_of(
        sequence_len=32, sample_packing=True, bf16=True, gradient_checkpointing=True, adapter="lora", lora_r=4,
        lora_alpha=8, lora_target_modules=list(FAMILIES[family].targets),
    )  # fmt: skip
    found = measured(plan_of(config, above(base))[0])
    assert min(found.weights, found.gradients, found.activations, found.logits) > 0


def test_linear_experts_of_a_llama4_are_in_4_bits_too(tmp_path: Path) -> None:
    base = make_llama4(tmp_path / "base")
    config = config_of(
        sequence_len=32, adapter="qlora", load_in_4bit=True, lora_r=4, lora_alpha=8,
        lora_target_modules=["experts.gate_projs.[0-9]+$"], llama4_linearized_experts=True,
    )  # fmt: skip
    plan, _ = plan_of(config, {**above(base), "quantized_base": Above({"load_in_4bit": True})})
    held = measured(plan).weights
    # Embeddings and head, 2 * 416 * 64, stay in float32; of the rest nearly all is linear.
    assert 4 * 2 * 416 * 64 < held < 1.4 * 4 * 2 * 416 * 64


def test_activations_on_disk_take_no_memory(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **SMALL)
    here, away = (
        measured(
            plan_of(config_of(micro_batch_size=4, bf16=False, activation_offloading=where), above(base))[0]
        )
        for where in (False, "disk")
    )
    assert away.activations < 0.6 * here.activations and away.total < here.total


@pytest.mark.slow
def test_layers_that_wait_leave_the_device_but_all_weights_are_there_once(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", **{**SMALL, "num_hidden_layers": 5})
    # Attention with half as many keys as queries, MLP, and two norms; float32.
    layer = 4 * (3 * 256 * 256 + 3 * 256 * 704 + 2 * 256)
    few = {"bf16": False, "micro_batch_size": 1, **LORA}
    for settings in ({**few, "gradient_checkpointing": True}, {**few, "micro_batch_size": 8}):
        plain, waiting = (
            measured(plan_of(config_of(**settings, layer_offloading=waits), above(base))[0], has_gpu=True)
            for waits in (False, True)
        )
        assert plain.weights - waiting.weights == 2 * layer
        # Either the loaded model is the most, or what its layers leave is spared at the peak.
        assert waiting.total == max(plain.weights, plain.total - 2 * layer)
    here = measured(plan_of(config_of(**few, layer_offloading=True), above(base))[0], has_gpu=False)
    assert here.weights == plain.weights
