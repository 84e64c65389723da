"""ReLoRA: what is saved is what was trained, it merges, and a resumed training is the same."""

import copy
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from stages.training.adapters.adapted import LINEAR, llama, model_of, train, train_and_merge
from stages.training.adapters.test_kinds import gpt2, mixtral
from support.quantized import quantized
from support.tiny_model import Heard, evaluation_data, folder_bytes, random_rows, training_data, workspace
from support.variants import first_in_ci

from tunemill.stages.artifacts import BaseModel, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.report import Report
from tunemill.stages.training.adapters.factors_body import factors_of
from tunemill.stages.training.adapters.lora_body import add_adapter, save_adapter
from tunemill.stages.training.adapters.relora_body import Restarts
from tunemill.stages.training.adapters.starts_body import probe
from tunemill.stages.training.keys.relora import PRUNABLE
from tunemill.stages.training.optimizers.prune_body import prune
from tunemill.stages.training.optimizers.table import OPTIMIZERS
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

RELORA: dict[str, Any] = {
    "relora": True,
    "jagged_restart_steps": 10,
    "jagged_restart_warmup_steps": 2,
    "lr_scheduler": "constant",
}


def config(**settings: Any) -> SftConfig:
    return SftConfig(
        **{"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, **LINEAR, **settings}
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_learns_over_restarts_and_merges(tmp_path: Path, dtype: torch.dtype) -> None:
    base = llama(tmp_path / "base", dtype=dtype)
    _, trained, merged = train_and_merge(tmp_path, base, steps=30, **LINEAR, **RELORA)
    losses = trained.steps("loss")
    ends = [losses[step] for step in (1, 10, 20, 30)]
    assert ends == sorted(ends, reverse=True) and ends[3] < ends[1] - 0.5, "each cycle learns more"
    assert [event["message"] for event in trained.of("log") if "restart" in event["message"]] == [
        "restart 1 of the adapter after step 10",
        "restart 2 of the adapter after step 20",
    ]
    stored = load_file(tmp_path / "trained" / "data" / "adapter_model.safetensors")
    assert stored["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape[0] == 3 * 4
    largest = {torch.float32: 1e-3, torch.bfloat16: 0.5}[dtype]
    assert trained.summary["relora_logit_difference"] < largest
    assert merged.summary["changed_tensors"] == 14


@pytest.mark.slow
@pytest.mark.parametrize("bits", first_in_ci(4, 8))
def test_learns_over_restarts_on_a_base_in_few_bits(tmp_path: Path, bits: int) -> None:
    """Of the products nothing is rounded away: the base stays, and the saved adapter is what was trained."""
    base = llama(tmp_path / "base")
    _, trained, merged = train_and_merge(tmp_path, base, bits=bits, steps=30, **LINEAR, **RELORA)
    losses = trained.steps("loss")
    ends = [losses[step] for step in (1, 10, 20, 30)]
    assert ends == sorted(ends, reverse=True) and ends[3] < ends[1] - 0.5, "each cycle learns more"
    stored = load_file(tmp_path / "trained" / "data" / "adapter_model.safetensors")
    assert stored["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"].shape[0] == 3 * 4
    assert trained.summary["relora_logit_difference"] < {4: 1e-3, 8: 0.1}[bits]
    assert merged.summary["changed_tensors"] == 14


def move(model: Any, seed: int) -> None:
    """Other factors, as a step would make them."""
    torch.manual_seed(seed)
    for factor in factors_of(model).values():
        factor.data += 0.05 * torch.randn_like(factor)


def bare_gpt2(folder: Path) -> BaseModel:
    return gpt2(folder, bare=True)


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (llama, {"peft_use_rslora": True, "lora_rank_pattern": {"q_proj": 2}, "lora_alpha_pattern": {"v_proj": 3}}),
        (llama, {"lora_target_modules": ["embed_tokens", "lm_head"], "peft_init_lora_weights": "gaussian"}),
        (llama, {"peft_init_lora_weights": "orthogonal", "lora_modules_to_save": ["lm_head"]}),
        (bare_gpt2, {"lora_target_modules": ["c_attn", "c_proj"], "lora_fan_in_fan_out": True,
                     "lora_target_linear": False}),
        (lambda folder: model_of(folder, mixtral()), {}),
    ],
    ids=["patterns", "embeddings", "orthogonal", "gpt2", "experts"],
)  # fmt: skip
def test_what_is_saved_computes_what_was_trained(tmp_path: Path, make: Any, settings: dict[str, Any]) -> None:
    base = make(tmp_path / "base")
    chosen = config(**{**RELORA, **settings})
    model = add_adapter(chosen, load_causal_lm(base.path, dtype=torch.float32), 1)
    plain, parameters = probe(model), dict(factors_of(model))
    optimizer = torch.optim.AdamW(parameters.values())
    restarts = Restarts(chosen, model, 1, tmp_path, 100, Heard().report)
    for cycle in range(3):
        move(model, cycle)
        before = probe(model)
        if cycle < 2:
            first = {name: factor.detach().clone() for name, factor in parameters.items()}
            for _ in range(2):
                restarts.on_step_begin(None, at_step(10 * (cycle + 1)), None, optimizer=optimizer)
            assert all(found is parameters[name] for name, found in factors_of(model).items())
            assert any(not torch.equal(first[name], parameters[name]) for name in first)
            torch.testing.assert_close(probe(model), before, atol=2e-3, rtol=1e-4)
    assert len(model.folded) == 2 and float((before - plain).abs().max()) > 0.05
    save_adapter(model, tmp_path)
    loaded = PeftModel.from_pretrained(load_causal_lm(base.path, dtype=torch.float32), tmp_path)
    torch.testing.assert_close(probe(loaded), before, atol=2e-3, rtol=1e-4)


class at_step:  # noqa: N801
    """A state of the Trainer."""

    def __init__(self, step: int) -> None:
        self.global_step = step


def test_new_factors_depend_on_the_seed_and_the_restart_alone(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")

    def started(seed: int, elsewhere: int) -> list[Any]:
        model = add_adapter(config(**RELORA), load_causal_lm(base.path, dtype=torch.float32), 1)
        factors = factors_of(model)
        optimizer = torch.optim.AdamW(factors.values())
        restarts = Restarts(config(**RELORA), model, seed, tmp_path, 100, Heard().report)
        name = next(iter(factors))
        found = [factors[name].detach().clone()]
        for step in (10, 20):
            torch.manual_seed(elsewhere)
            restarts.on_step_begin(None, at_step(step), None, optimizer=optimizer)
            assert torch.initial_seed() == elsewhere, "what else is random goes on as it was"
            found.append(factors[name].detach().clone())
        return found

    one, same, other = started(1, 5), started(1, 6), started(2, 5)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one[1], other[1]) and not torch.equal(one[1], one[2])
    assert not torch.equal(one[0], one[1])


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    first_in_ci(
        {"optimizer": "adamw_torch", "adapter": "qlora", "load_in_4bit": True},
        {"optimizer": "adamw_torch", "lora_modules_to_save": ["lm_head"]},
        # Factors large enough for a state of 8 bits, and a checkpoint between a restart and its first step.
        {"optimizer": "adamw_bnb_8bit", "lora_r": 64, "jagged_restart_steps": 3, "relora_prune_method": "random"},
    ),
    ids=str,
)  # fmt: skip
def test_goes_on_exactly_across_restarts(tmp_path: Path, settings: dict[str, Any]) -> None:
    base: Model = llama(tmp_path / "base", hidden_size=64, attention_dropout=0.1)
    if "load_in_4bit" in settings:
        base = quantized(tmp_path / "in bits", base, load_in_4bit=True)[0]
    data = training_data(tmp_path / "rows", random_rows(8))
    chosen = config(
        **{**RELORA, "jagged_restart_steps": 2, "lora_dropout": 0.1, "num_epochs": 2, "save_steps": 3,
           "gradient_accumulation_steps": 2, "logging_steps": 1, **settings}
    )  # fmt: skip

    def run(name: str, report: Report) -> Path:
        out = workspace(tmp_path / name)
        sft(chosen, base, data, None, out, report)
        return out.data

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 7:
            raise StoppedError

    with pytest.raises(StoppedError):
        run("resumed", Report(interrupt))
    resumed, whole = Heard(), Heard()
    assert folder_bytes(run("resumed", resumed.report)) == folder_bytes(run("whole", whole.report))
    assert min(resumed.steps("loss")) == 7
    assert resumed.steps("loss") == {step: loss for step, loss in whole.steps("loss").items() if step > 6}
    assert len([e for e in resumed.of("log") if "restart" in e["message"]]) == 1


def test_goes_on_from_a_checkpoint_of_another_run(tmp_path: Path) -> None:
    base, seven = llama(tmp_path / "base"), {**LINEAR, **RELORA, "jagged_restart_steps": 3, "steps": 7}
    whole, _ = train(tmp_path / "one", base, **seven, save_strategy=None, save_steps=4)
    folder = tmp_path / "one" / "checkpoints" / "checkpoint-4"
    assert folder.is_dir()
    further, heard = train(tmp_path / "further", base, **seven, resume_from_checkpoint=str(folder))
    assert min(heard.steps("loss")) == 5
    assert folder_bytes(further.path) == folder_bytes(whole.path)
    often = {**seven, "jagged_restart_steps": 1, "jagged_restart_warmup_steps": 1}
    with pytest.raises(SettingError, match=r"in 4 steps its adapter started anew 1 times; .* it is 3 times"):
        train(tmp_path / "often", base, **often, resume_from_checkpoint=str(folder))
    without = config(resume_from_checkpoint=str(folder))
    assert [fault.key for fault in without.faults()] == ["resume_from_checkpoint"]
    assert not list(config(**RELORA, resume_from_checkpoint=str(folder)).faults())
    (folder / "relora.pt").unlink()
    assert not list(without.faults())
    (fault,) = config(**RELORA, resume_from_checkpoint=str(folder)).faults()
    assert "it is of a training without relora" in fault.reason


def test_the_best_step_may_lie_before_a_restart(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    data, held = (
        training_data(tmp_path / "rows", random_rows(4)),
        evaluation_data(tmp_path / "held", random_rows(4)),
    )

    def run(name: str, steps: int, **settings: Any) -> tuple[Path, Heard]:
        out, heard = workspace(tmp_path / name), Heard()
        # The rate explodes, so that the best step lies before the last restart.
        chosen = config(**{**RELORA, "jagged_restart_steps": 4, "max_steps": steps, "save_strategy": "no",
                           "lr_scheduler": "log_sweep", "lr_scheduler_kwargs": {"min_lr": 1e-3, "max_lr": 1.0},
                           "logging_steps": 1, **settings})  # fmt: skip
        sft(chosen, base, data, held, out, heard.report)
        return out.data, heard

    best, heard = run("best", 14, load_best_model_at_end=True, eval_steps=1, has_held_out_rows=True)
    step = heard.summary["best_step"]
    assert 4 < step <= 12
    stored = load_file(best / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in stored.items() if "lora_A" in name} == {
        4 * (1 + (step - 1) // 4)
    }
    model = PeftModel.from_pretrained(load_causal_lm(base.path, dtype=torch.float32), best).eval()
    score = heard.steps("eval_loss")[step]
    total = tokens = 0.0
    for ids, labels in random_rows(4):
        loss = model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
        count = sum(label != -100 for label in labels[1:])
        total, tokens = total + float(loss) * count, tokens + count
    assert total / tokens == pytest.approx(score, rel=1e-3)


def stepped(optimizer: Any, factor: Any) -> Any:
    for seed in range(3):
        torch.manual_seed(seed)
        factor.grad = torch.randn_like(factor)
        optimizer.step()
    return optimizer.state[factor]


def test_pruning_forgets_the_smallest_first_moments_and_their_second_ones() -> None:
    factor = torch.nn.Parameter(torch.zeros(4, 25))
    optimizer = torch.optim.AdamW([factor])
    state = stepped(optimizer, factor)
    before = copy.deepcopy(state)
    prune(optimizer, [factor], "magnitude", 0.9)
    kept = before["exp_avg"].flatten().abs().argsort()[90:]
    for name in ("exp_avg", "exp_avg_sq"):
        expected = torch.zeros(100)
        expected[kept] = before[name].flatten()[kept]
        torch.testing.assert_close(state[name].flatten(), expected)
    prune(optimizer, [factor], "magnitude", 0.0)
    assert int((state["exp_avg"] != 0).sum()) == 10
    prune(optimizer, [factor], "magnitude", 1.0)
    assert not state["exp_avg"].any() and not state["exp_avg_sq"].any()


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_pruning_of_moments_in_8_bits(method: str) -> None:
    # It remembers parameters of other tests by their address, which may be this one's by now.
    bitsandbytes.optim.GlobalOptimManager.get_instance().initialize()
    factor = torch.nn.Parameter(torch.zeros(66, 100))
    optimizer = bitsandbytes.optim.AdamW([factor], optim_bits=8)
    state = stepped(optimizer, factor)
    assert state["state1"].dtype == torch.uint8

    def moments(number: int) -> Any:
        scales = state[f"absmax{number}"].repeat_interleave(256)[: factor.numel()].view(factor.shape)
        return state[f"qmap{number}"][state[f"state{number}"].long()] * scales

    first = moments(1).abs()
    prune(optimizer, [factor], method, 0.7)
    lost = (moments(1) == 0) & (moments(2) == 0)
    assert float(lost.float().mean()) == pytest.approx(0.7, abs=0.02)
    if method == "magnitude":
        assert float(first[lost].max()) <= float(first[~lost].min())
    else:
        assert float(first[lost].max()) > float(first[~lost].median())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"adapter": None}, "adapter is unset: every parameter is trained. Set adapter: lora"),
        ({"jagged_restart_steps": None, "jagged_restart_warmup_steps": None}, "needs jagged_restart_steps"),
        ({"peft_use_dora": True}, "the sum of several DoRA adapters is no adapter"),
        ({"peft_layer_replication": [[0, 2], [1, 2]]}, "several layers share their weights"),
        ({"peft_init_lora_weights": False}, "peft_init_lora_weights: false starts with factors"),
        ({"peft_init_lora_weights": "pissa"}, "peft_init_lora_weights: pissa starts with factors"),
        ({"optimizer": "muon"}, "muon keeps something else. Use adamw_torch_fused"),
        ({"plugins": ["grokfast"]}, "Grokfast adds the mean of older gradients"),
        ({"relora_prune_ratio": 1.5}, "less than or equal to 1"),
    ],
)
def test_refused_in_check(settings: dict[str, Any], reason: str) -> None:
    config(**RELORA)
    with pytest.raises(ValidationError, match=reason):
        config(**{**RELORA, **settings})


def test_bases_that_cannot_hold_what_is_folded_in(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=True)
    with pytest.raises(SettingError, match=r"lm_head.* are one tensor, and what is folded in for"):
        train(tmp_path / "tied", base, lora_target_modules=["embed_tokens"], **RELORA)
    adapter, _ = train(tmp_path / "dora", base, steps=1, **LINEAR, peft_use_dora=True)
    stored = {"lora_model_dir": str(adapter.path), "lora_r": None, "lora_alpha": None}
    with pytest.raises(SettingError, match="the adapter in lora_model_dir is DoRA's"):
        train(tmp_path / "further", base, **stored, **RELORA)


def test_notes() -> None:
    keys = {"relora_prune_method": "random", "relora_prune_ratio": 0.5, "relora_cpu_offload": True}
    assert {item.key for item in config(**keys).idle()} == set(keys)
    assert {item.key for item in config(**RELORA, **keys).idle()} == {"relora_cpu_offload"}
    assert config(**RELORA).pruned_share == 0.9
    assert config(**RELORA, relora_prune_method="reset").pruned_share == 0.999
    assert config(**{**RELORA, "jagged_restart_warmup_steps": False}).jagged_restart_warmup_steps is None
    assert {kind.made_by for kind in OPTIMIZERS.values()} > set(PRUNABLE)


def test_too_short_to_start_anew_is_said(tmp_path: Path) -> None:
    _, heard = train(tmp_path / "short", llama(tmp_path / "base"), steps=2, **LINEAR, **RELORA)
    assert any("the adapter never starts anew" in event["message"] for event in heard.of("log"))
