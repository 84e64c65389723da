"""The `sft` slice: what it takes, and what it refuses with a reason."""

from typing import Any

import pytest
from pydantic import ValidationError

from tunemill.stages.declaration import RuntimeMark
from tunemill.stages.training.sft.config import SftConfig

LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}


def config(**settings: Any) -> SftConfig:
    return SftConfig(**{"learning_rate": 1e-3, **settings})


def test_yaml_writes_2e_4_as_text() -> None:
    assert config(learning_rate="2e-4").learning_rate == 2e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": None}, "learning_rate"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"adapter": "qlora"}, "qlora is a low-rank adapter on a base in 4 bits"),
        ({"adapter": "lroa"}, "Input should be 'lora'"),
        ({"adapter": "lora", "lora_r": 4, "lora_target_linear": True}, "adapter: lora needs lora_alpha"),
        ({**LORA, "lora_target_modules": ".*_proj"}, "as a regular expression and lora_target_linear: true exclude"),
        ({**LORA, "tokens": ["<x>"]}, "tokens adds rows to the embeddings"),
        ({"group_by_length": True, "sample_packing": True}, "group_by_length sorts rows by length"),
        ({"warmup_steps": 1, "warmup_ratio": 0.1}, "warmup_steps and warmup_ratio both"),
        ({"warmup_steps": 1, "lr_scheduler": "constant"}, "constant has no warmup"),
        ({"lr_scheduler": "constant", "lr_scheduler_kwargs": {"a": 1}}, "constant takes no lr_scheduler_kwargs"),
        (
            {"lr_scheduler": "constant_with_warmup", "lr_scheduler_kwargs": {"a": 1}},
            "constant_with_warmup takes no lr_scheduler_kwargs",
        ),
        (
            {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": "(q_proj"},
            "a text is a regular expression, and this is no valid one",
        ),
        ({"lr_scheduler": "greedy"}, "min_lr: 0.001: the rate falls"),
        ({"lr_scheduler": "linear", "cosine_min_lr_ratio": 0.1}, "needs lr_scheduler: cosine or rex, not linear"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}, "cosine_min_lr_ratio": 0.1}, "both shape the schedule"),
        ({"optimizer": "sgd", "adam_beta1": 0.8}, "adam_beta1: optimizer sgd has no such setting"),
        ({"optimizer": "sgd", "optim_args": {"momentun": 0.9}}, "momentun: optimizer sgd takes dampening, momentum"),
        ({"optim_args": "amsgrad=true"}, "amsgrad: optimizer adamw_torch_fused takes none"),
        ({"optimizer": "sgd", "optim_args": "momentum"}, "write name=value"),
        ({"optimizer": "adamw_bnb_9bit"}, "Input should be 'adamw_torch'"),
        ({"bf16": True, "fp16": True}, "bf16 and fp16: choose one precision"),
        ({"bf16": "full", "float32": True}, "bf16 and float32: choose one precision"),
        ({"flash_attention": True, "sdp_attention": True}, "sdp_attention and flash_attention: choose one"),
        ({"eager_attention": True, "attn_implementation": "sdpa"}, "eager_attention and attn_implementation"),
        ({"activation_offloading": "hidden_states"}, "set gradient_checkpointing: true"),
        ({"save_steps": 5, "saves_per_epoch": 2}, "save_steps and saves_per_epoch exclude"),
        ({"eval_steps": 5, "evals_per_epoch": 2}, "eval_steps and evals_per_epoch exclude"),
        ({"save_strategy": "no", "save_steps": 5}, "save_strategy: no and save_steps exclude"),
        ({"eval_strategy": "epoch", "evals_per_epoch": 5}, "eval_strategy: epoch and evals_per_epoch exclude"),
        ({"eval_strategy": "best"}, "write save_strategy: best"),
        ({"save_strategy": "steps"}, "save_strategy: steps needs save_steps"),
        ({"save_steps": 2.5}, "give whole steps"),
        ({"learnin_rate": 1}, "learnin_rate"),
    ],
)  # fmt: skip
def test_settings_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_older_names_of_attention() -> None:
    assert config().attention is None
    assert config(attn_implementation="eager").attention == "eager"
    assert config(sdp_attention=True, flash_attention=False).attention == "sdpa"
    assert config(flash_attention=True).attention == "flash_attention_2"
    assert config(eager_attention=True).attention == "eager"


def test_padding_follows_packing_unless_set() -> None:
    assert not config().pads_to_sequence_len
    assert config(sample_packing=True).pads_to_sequence_len
    assert not config(sample_packing=True, pad_to_sequence_len=False).pads_to_sequence_len
    assert config(pad_to_sequence_len=True).pads_to_sequence_len


def test_optim_args_in_both_spellings() -> None:
    args = {"momentum": "0.9", "nesterov": "true"}
    assert config(optimizer="sgd", optim_args="momentum=0.9, nesterov=true").optim_args == args
    assert config(optimizer="sgd", optim_args=args).optim_args == args


def test_runtime_fields_say_why() -> None:
    runtime = SftConfig.marked(RuntimeMark)
    assert set(runtime) >= {"logging_steps", "save_steps", "eval_batch_size", "dataloader_num_workers"}
    assert "seed" not in runtime and "gradient_checkpointing" not in runtime
    for name in runtime:
        assert ": " in (SftConfig.model_fields[name].description or ""), name


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"lora_r": 4, "lora_dropout": 0.1, "peft_use_rslora": True}, {"lora_r", "lora_dropout", "peft_use_rslora"}),
        ({"lora_mlp_kernel": True}, {"lora_mlp_kernel"}),
        ({**LORA, "lora_mlp_kernel": True}, set()),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, {"gradient_checkpointing_kwargs"}),
        ({"gradient_checkpointing_kwargs": {"a": 1}, "gradient_checkpointing": True}, set()),
        ({"dataloader_prefetch_factor": 2}, {"dataloader_prefetch_factor"}),
        ({"dataloader_prefetch_factor": 2, "dataloader_num_workers": 1}, set()),
        ({"multipack_real_batches": True}, {"multipack_real_batches"}),
        ({"chunked_cross_entropy_num_chunks": 4}, {"chunked_cross_entropy_num_chunks"}),
        ({"plugins": ["liger"]}, {"plugins"}),
        ({"plugins": ["liger"], "liger_rope": True}, set()),
        ({"plugins": ["liger"], "liger_cross_entropy": True}, set()),
        ({"plugins": ["cut_cross_entropy"]}, set()),
        ({"evals_per_epoch": 0}, {"evals_per_epoch"}),
        ({"saves_per_epoch": 0, "save_steps": 0, "eval_steps": 0}, {"saves_per_epoch", "save_steps", "eval_steps"}),
        ({"evals_per_epoch": 2}, set()),
        ({"evals_per_epoch": 2, "has_held_out_rows": False}, {"evals_per_epoch"}),
        ({"eval_strategy": "epoch", "eval_batch_size": 2, "has_held_out_rows": False},
         {"eval_strategy", "eval_batch_size"}),
        ({"eval_strategy": "steps", "has_held_out_rows": False}, {"eval_strategy"}),
        ({"eval_strategy": False, "has_held_out_rows": False}, set()),
        ({**LORA, "liger_glu_activation": True, "lora_mlp_kernel": True}, {"liger_glu_activation"}),
        ({**LORA, "liger_glu_activation": True, "kernels": ["lora_mlp"]}, {"liger_glu_activation"}),
        ({**LORA, "liger_glu_activation": True}, set()),
    ],
)  # fmt: skip
def test_settings_that_ask_for_nothing_are_noted_and_no_part_of_the_key(
    settings: dict[str, Any], idle: set[str]
) -> None:
    made = config(**settings)
    assert {item.key for item in made.idle()} == idle
    assert not idle & set(made.semantic())
    rest = {name: value for name, value in settings.items() if name not in idle}
    assert made.semantic() == config(**rest).semantic()


def test_the_lora_mlp_kernel_goes_before_ligers_activation() -> None:
    asked = {**LORA, "liger_glu_activation": True, "lora_mlp_kernel": True}
    sources = config(**asked).kernel_choice.sources
    assert sources["lora_mlp"] == "tunemill" and sources["swiglu"] == "tunemill"
    alone = config(**LORA, liger_glu_activation=True).kernel_choice.sources
    assert "lora_mlp" not in alone and alone["swiglu"] == "liger"


@pytest.mark.parametrize(
    ("settings", "libraries"),
    [
        ({"kernels": "off"}, set()),
        ({}, {"triton"}),
        ({"kernels": "off", "liger_rope": True}, {"liger-kernel"}),
        ({"kernels": "off", "cut_cross_entropy": True}, {"cut-cross-entropy"}),
        ({"kernels": "off", "chunked_cross_entropy": True}, set()),
        ({"kernels": ["rope"]}, {"triton"}),
    ],
)
def test_libraries_of_kernels_count_where_they_are_used(
    settings: dict[str, Any], libraries: set[str]
) -> None:
    assert set(config(**settings).used_libraries()) == libraries
