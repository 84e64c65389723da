"""Learning rates that differ between parameters, and Grokfast: groups by hand, and what they do to a training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from pydantic import ValidationError
from safetensors.torch import load_file
from support.tiny_model import Heard, make_model, random_rows, tiny_config, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.training.optimizers.build_body import build_optimizer
from tunemill.stages.training.optimizers.groups_body import embedding_parameters, learning_rates
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "embed_tokens"]}


def plain() -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(tiny_config(num_hidden_layers=1))


def adapted(**settings: Any) -> Any:
    return get_peft_model(plain(), LoraConfig(r=4, target_modules=["q_proj", "embed_tokens"], **settings))


def config(**settings: Any) -> SftConfig:
    return SftConfig(**{"learning_rate": 1e-2, "lr_scheduler": "constant", **settings})


def test_groups_of_learning_rates() -> None:
    groups = [
        {"name": "attention", "modules": ["self_attn"], "lr": 0.3},
        {"name": "q", "modules": ["q_proj", "norm"], "lr": 0.1},
    ]
    made = plain()
    found = learning_rates(config(lr_groups=groups, embedding_lr=0.5), made)
    # The first group that names a parameter has it.
    expected = {
        name: 0.3 if "self_attn" in name else 0.1 if "norm" in name else 0.5
        for name, _ in made.named_parameters()
        if "mlp" not in name
    }
    assert found == expected
    optimizer = build_optimizer(
        config(lr_groups=groups, embedding_lr=0.5, weight_decay=0.1), made, [], warmup=0
    )
    assert {group["lr"] for group in optimizer.param_groups if group["params"]} == {1e-2, 0.1, 0.3, 0.5}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(made.parameters()))
    assert list(learning_rates(config(embedding_lr_scale=3), made).values()) == pytest.approx([3e-2] * 2)


def test_lora_plus_has_the_groups_of_peft() -> None:
    made = adapted(use_dora=False, modules_to_save=["lm_head"])
    settings = config(
        **LORA, lora_modules_to_save=["lm_head"], loraplus_lr_ratio=8, loraplus_lr_embedding=1e-4
    )
    ours = build_optimizer(settings, made, [], warmup=0)
    theirs = create_loraplus_optimizer(
        made, torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=8, loraplus_lr_embedding=1e-4
    )

    def rates(optimizer: Any) -> dict[int, float]:
        return {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}

    assert rates(ours) == pytest.approx(rates(theirs))
    assert set(rates(ours).values()) == {1e-2, 8e-2, 1e-4}


def test_embeddings_beside_an_adapter() -> None:
    made = adapted(modules_to_save=["lm_head"])
    trained = {id(p): name for name, p in made.named_parameters() if p.requires_grad}
    found = [trained[id(one)] for one in embedding_parameters(made) if id(one) in trained]
    assert [name.rpartition("model.")[2] for name in found] == [
        "embed_tokens.lora_embedding_A.default",
        "embed_tokens.lora_embedding_B.default",
        "lm_head.modules_to_save.default.weight",
    ]
    with pytest.raises(SettingError, match="embedding_lr: no embedding is trained"):
        learning_rates(
            config(embedding_lr=1.0), get_peft_model(plain(), LoraConfig(target_modules=["q_proj"]))
        )


def run(folder: Path, base: Path, **settings: Any) -> tuple[Path, Heard]:
    data = training_data(folder / "rows", random_rows(8))
    out, heard = workspace(folder), Heard()
    made = config(**{"logging_steps": 1, "save_strategy": "no", "num_epochs": 2, **settings})
    sft(made, Model(base), data, None, out, heard.report)
    return out.data, heard


@pytest.mark.slow
def test_lora_plus_learns_faster(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    settings = {
        **LORA,
        "lora_target_modules": None,
        "lora_target_linear": True,
        "learning_rate": 1e-3,
        "num_epochs": 4,
    }
    _, slow = run(tmp_path / "slow", base, **settings)
    _, fast = run(tmp_path / "fast", base, **settings, loraplus_lr_ratio=16)
    assert fast.steps("loss")[1] == slow.steps("loss")[1]
    assert fast.summary["last_loss"] < slow.summary["last_loss"] - 0.5


def test_grokfast_by_hand_and_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    settings = {"optimizer": "sgd", "max_grad_norm": 0, "plugins": ["grokfast"], "grokfast_alpha": 0.5,
                "learning_rate": 0.1, "num_epochs": 1}  # fmt: skip
    left, _ = run(tmp_path / "whole", base, **settings)
    model, means = AutoModelForCausalLM.from_pretrained(base), {}
    for ids, labels in random_rows(8):
        model.zero_grad()
        model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.backward()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                means[name] = 0.5 * means.get(name, parameter.grad) + 0.5 * parameter.grad
                parameter -= 0.1 * (parameter.grad + 2.0 * means[name])
    for name, tensor in load_file(left / "model.safetensors").items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"embedding_lr": 1, "embedding_lr_scale": 2}, "both set the learning rate of embeddings"),
        ({"loraplus_lr_ratio": 2, "embedding_lr": 2, **LORA}, "loraplus_lr_ratio and embedding_lr both"),
        ({"lr_groups": [{"name": "a", "modules": ["x"], "lr": 1}] * 2}, 'two groups have the name "a"'),
        ({"lr_groups": [{"name": "a", "modules": [], "lr": 1}]}, "at least 1 item"),
        ({"optimizer": "adamc", "embedding_lr": 1}, "adamc has one learning rate for all"),
        ({"optimizer": "lomo", "plugins": ["grokfast"]}, "Grokfast adds to gradients"),
    ],
    ids=str,
)
def test_settings_are_refused_with_the_reason(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**settings)


def test_notes() -> None:
    found = {item.key for item in config(loraplus_lr_ratio=2, grokfast_alpha=0.5).idle()}
    assert found == {"loraplus_lr_ratio", "grokfast_alpha"}
    assert {item.key for item in config(loraplus_lr_embedding=2, **LORA).idle()} == {"loraplus_lr_embedding"}
    assert not set(config(grokfast_alpha=0.5, plugins=["grokfast"]).idle())
