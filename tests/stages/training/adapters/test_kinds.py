"""Every kind of LoRA trains, and merges into a model that computes what was trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from stages.training.adapters.adapted import LINEAR, ROWS, llama, model_of, train, train_and_merge
from support.tiny_model import VOCABULARY, folder_bytes
from transformers import AutoModelForCausalLM, GPT2Config, MixtralConfig, PreTrainedConfig, Qwen3MoeConfig

from tunemill.stages.artifacts import BaseModel
from tunemill.stages.errors import SettingError
from tunemill.stages.training.sft.config import SftConfig

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
ATTENTION: dict[str, Any] = {"lora_target_modules": ["q_proj", "v_proj"]}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def mixtral() -> PreTrainedConfig:
    return MixtralConfig(**SMALL, num_local_experts=2, num_experts_per_tok=1)


def qwen3_moe() -> PreTrainedConfig:
    return Qwen3MoeConfig(
        **SMALL, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, head_dim=32
    )


def gpt2(folder: Path, *, bare: bool) -> BaseModel:
    """A tiny GPT-2; `bare`: its tensors are stored without the name of the part that the head stands on."""
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2,
        bos_token_id=None, eos_token_id=2,
    )  # fmt: skip
    base = model_of(folder, config)
    path = folder / "model.safetensors"
    if bare:
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    return base


@pytest.mark.slow
@pytest.mark.parametrize("bits", [None, 4])
def test_dora_learns_and_merges(tmp_path: Path, bits: int | None) -> None:
    base = llama(tmp_path / "base", dtype=torch.bfloat16)
    settings = {**LINEAR, "peft_use_dora": True, "steps": 60, "lora_r": 8, "lora_alpha": 16}
    if bits:
        settings |= {"adapter": "qlora"}
    data, trained, heard = train_and_merge(tmp_path, base, bits=bits, **settings)
    losses = trained.steps("loss")
    assert losses[1] > 4 and losses[60] < 0.5, "four rows are learned by heart"
    assert heard.summary["changed_tensors"] == 14 and heard.summary["adapter_tensors_used"] == 42
    stored = load_file(data / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert stored.keys() == load_file(base.path / "model.safetensors").keys()


@pytest.mark.parametrize(
    ("start", "variant"),
    [
        ("pissa", {}),
        ("pissa", {"peft_use_dora": True}),
        ("pissa_niter_4", {}),
        ("olora", {"peft_use_rslora": True}),
    ],
    ids=str,
)
def test_starts_that_take_from_the_base(tmp_path: Path, start: str, variant: dict[str, Any]) -> None:
    base = llama(tmp_path / "base")
    patterns = {"lora_rank_pattern": {"q_proj": 2}, "lora_alpha_pattern": {"v_proj": 3}}
    settings = {**LINEAR, **patterns, **variant, "peft_init_lora_weights": start}
    _, trained, _ = train_and_merge(tmp_path, base, **settings)
    assert trained.summary["start_logit_difference"] < 1e-3
    stored = load_file(tmp_path / "trained" / "data" / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.{}_proj.lora_A.weight"
    assert [stored[name.format(part)].shape[0] for part in "qv"] == [4, 8], "twice the rank"
    # Before the first step the model is the base.
    _, plain = train(tmp_path / "plain", base, steps=1, **LINEAR)
    assert trained.steps("loss")[1] == pytest.approx(plain.steps("loss")[1], rel=1e-4)


def test_starts_that_no_weight_can_give(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=True)
    with pytest.raises(SettingError, match="shares its weight, as an output head tied to the embeddings"):
        train(tmp_path / "a", base, lora_target_modules=["lm_head"], peft_init_lora_weights="pissa")
    with pytest.raises(SettingError, match="is for linear modules, and an embedding gets an adapter"):
        train(tmp_path / "b", base, lora_target_modules=["embed_tokens"], peft_init_lora_weights="pissa")
    experts = model_of(tmp_path / "experts", mixtral())
    with pytest.raises(SettingError, match="PEFT cannot add it to this model"):
        train(tmp_path / "c", experts, **LINEAR, peft_init_lora_weights="pissa")


@pytest.mark.parametrize("family", [mixtral, qwen3_moe])
@pytest.mark.parametrize("targets", [ATTENTION, LINEAR], ids=str)
def test_mixtures_of_experts(tmp_path: Path, family: Any, targets: dict[str, Any]) -> None:
    base = model_of(tmp_path / "base", family())
    data, _, heard = train_and_merge(tmp_path, base, **targets)
    # With attention alone nothing but its tensors moves; every linear module is the experts too.
    expected = 4 if targets is ATTENTION else {"mixtral": 22, "qwen3_moe": 34}[family().model_type]
    assert heard.summary["changed_tensors"] == expected
    assert load_file(data / "model.safetensors").keys() == load_file(base.path / "model.safetensors").keys()


def test_parameters_that_belong_to_no_linear_module(tmp_path: Path) -> None:
    base = model_of(tmp_path / "base", qwen3_moe())
    _, _, heard = train_and_merge(tmp_path / "some", base, **ATTENTION, lora_target_parameters=EXPERTS)
    assert heard.summary["changed_tensors"] == 4 + 2 * 4 * 3
    _, _, heard = train_and_merge(tmp_path / "alone", base, lora_target_parameters="experts.down_proj")
    assert heard.summary["changed_tensors"] == 2 * 4
    with pytest.raises(
        SettingError, match=r"lora_target_parameters: experts.up: no parameter of this model. It has"
    ):
        train(tmp_path / "unknown", base, lora_target_parameters=["experts.up"])
    with pytest.raises(SettingError, match=r"PEFT cannot add it to this model: .*lora_dropout"):
        train(tmp_path / "dropout", base, **LINEAR, lora_dropout=0.1)


def test_a_deeper_model_of_the_same_layers(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", dtype=torch.bfloat16)
    layers = [[0, 2], [0, 1], [1, 2]]
    data, _, heard = train_and_merge(tmp_path, base, **LINEAR, peft_layer_replication=layers)
    merged = AutoModelForCausalLM.from_pretrained(data)
    assert merged.config.num_hidden_layers == 4 and merged.dtype == torch.bfloat16
    assert heard.summary["adapter_tensors_used"] == 4 * 14
    weights = load_file(data / "model.safetensors")
    one, other = (weights[f"model.layers.{layer}.self_attn.q_proj.weight"] for layer in (1, 3))
    assert not torch.equal(one, other), "each copy has an adapter of its own"
    with pytest.raises(SettingError, match="peft_layer_replication: 3: the model has 2 layers"):
        train(tmp_path / "beyond", base, **LINEAR, peft_layer_replication=[[0, 3]])


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    ("targets", "changed"),
    [
        ({"lora_target_modules": ["c_attn", "lm_head"]}, 3),
        ({"lora_target_modules": ["c_attn", "lm_head"], "lora_fan_in_fan_out": True}, 3),
        ({"lora_target_modules": ["c_attn", "attn.c_proj"], "lora_modules_to_save": ["wte"]}, 6),
        (LINEAR, 8),
    ],
    ids=str,
)
def test_modules_that_store_either_way(
    tmp_path: Path, targets: dict[str, Any], changed: int, bare: bool
) -> None:
    base = gpt2(tmp_path / "base", bare=bare)
    data, _, heard = train_and_merge(tmp_path, base, **targets)
    assert heard.summary["changed_tensors"] == changed
    assert load_file(base.path / "model.safetensors").keys() <= load_file(data / "model.safetensors").keys()


@pytest.mark.parametrize("tied", [False, True])
def test_embeddings_of_some_tokens(tmp_path: Path, tied: bool) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=tied)
    tokens = sorted({token for ids, _ in ROWS for token in ids})[:2]
    data, _, _ = train_and_merge(tmp_path, base, **ATTENTION, peft_trainable_token_indices=tokens)
    old, new = (
        load_file(folder / "model.safetensors")["model.embed_tokens.weight"] for folder in (base.path, data)
    )
    assert (old != new).any(dim=1).nonzero().flatten().tolist() == tokens
    again, _, _ = train_and_merge(tmp_path / "again", base, **ATTENTION, peft_trainable_token_indices=tokens)
    assert folder_bytes(data) == folder_bytes(again)


def test_a_tied_head_that_parts_beside_dora(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=True)
    data, _, _ = train_and_merge(
        tmp_path, base, **LINEAR, peft_use_dora=True, lora_modules_to_save=["lm_head"]
    )
    assert AutoModelForCausalLM.from_pretrained(data).config.tie_word_embeddings is False


@pytest.mark.parametrize(
    ("settings", "layers"),
    [
        ({"lora_target_linear": True}, ["0"]),
        ({"lora_target_modules": "all-linear"}, ["0"]),
        ({"lora_target_linear": True, "lora_target_modules": ["lm_head"]}, ["0", "head"]),
        ({"lora_target_modules": ["lm_head", "q_proj"]}, ["0", "head"]),
        ({"lora_target_modules": ["q_proj"], "peft_layers_pattern": ["layers"]}, ["0"]),
        ({"lora_target_linear": True, "peft_layers_pattern": ["layers"]}, ["0"]),
    ],
    ids=str,
)
def test_some_layers(tmp_path: Path, settings: dict[str, Any], layers: list[str]) -> None:
    base = llama(tmp_path / "base")
    adapter, _ = train(tmp_path, base, steps=1, peft_layers_to_transform=[0], **settings)
    names = load_file(adapter.path / "adapter_model.safetensors")
    assert sorted({"head" if "lm_head" in name else name.split(".")[4] for name in names}) == layers


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_target_modules": ["lm_head"]},
        {"lora_target_linear": True, "peft_layers_pattern": ["blocks"]},
        {"lora_target_modules": ["q_proj"], "peft_layers_pattern": ["blocks"]},
    ],
    ids=str,
)
def test_layers_that_hold_no_target(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=r"none of the modules .* is in these layers"):
        train(tmp_path, llama(tmp_path / "base"), steps=1, peft_layers_to_transform=[0], **settings)


LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 0.1}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({**LINEAR, "peft_init_lora_weights": "corda", "load_in_8bit": True}, "cannot hold what is left"),
        ({**LINEAR, "peft_init_lora_weights": "lora_ga", "load_in_4bit": True}, "cannot hold what is left"),
        (
            {**LINEAR, "peft_init_lora_weights": "mica", "load_in_4bit": True},
            "rounding to few bits has changed most",
        ),
        ({**LINEAR, "peft_init_lora_weights": "mica", "peft_use_dora": True}, "keeps the second factors"),
        ({**LINEAR, "peft_init_lora_weights": "corda", "peft": {"eva_config": {}}}, "starts with corda"),
        ({**LINEAR, "peft_init_lora_weights": "eva", "peft": {"eva_config": {"tau": 1}}}, "less than 1"),
        (
            {"lora_target_parameters": EXPERTS, "peft_init_lora_weights": "mica"},
            "looks at the weights of linear",
        ),
        (
            {**LINEAR, "peft_init_lora_weights": "loftq", "load_in_4bit": True},
            "rounds them itself, and holds them",
        ),
        ({**LINEAR, "peft": {"loftq_config": {}}, "load_in_8bit": True}, "has the rounded ones alone"),
        ({**LINEAR, "peft": {"loftq_config": {"loftq_bits": 3}}}, "Input should be 4 or 8"),
        ({**LINEAR, "peft_init_lora_weights": "pissa", "peft": {"loftq_config": {}}}, "starts with pissa"),
        ({**LINEAR, "peft": {"loftq_config": {}}, "peft_layer_replication": [[0, 2]]}, "share their weights"),
        ({"lora_target_parameters": EXPERTS, "peft": {"loftq_config": {}}}, "looks at the weights of linear"),
        ({**LINEAR, "peft_init_lora_weights": "pisa"}, "match pattern"),
        ({**LINEAR, "peft_init_lora_weights": "pissa", "load_in_4bit": True}, "cannot hold what is left"),
        ({**LINEAR, "peft_init_lora_weights": "olora", "load_in_8bit": True}, "cannot hold what is left"),
        ({"lora_target_parameters": EXPERTS, "lora_dropout": 0.1}, "goes without lora_dropout"),
        ({"lora_target_parameters": EXPERTS, "peft_use_dora": True}, "no magnitudes"),
        (
            {"lora_target_parameters": EXPERTS, "peft_init_lora_weights": "pissa"},
            "looks at the weights of linear",
        ),
        (
            {"lora_target_modules": r".*q_proj", "peft_layers_to_transform": [0]},
            "which layers it means itself",
        ),
        ({**LINEAR, "tokens": ["<new>"]}, "peft_trainable_token_indices to the ids"),
    ],
    ids=str,
)
def test_what_is_refused_before_anything_runs(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SftConfig(**LORA, **settings)
    SftConfig(**LORA, **LINEAR, tokens=["<new>"], peft_trainable_token_indices=[7])
