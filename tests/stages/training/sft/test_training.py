"""The `trained` body on real tiny models."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from support.tiny_model import (
    VOCABULARY,
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    packs_of,
    random_rows,
    training_data,
    workspace,
)
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from tunemill.stages.artifacts import EvaluationData, Model, TrainingData
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.loss_body import mean_loss, row_losses
from tunemill.stages.training.callbacks_body import random_state_kept
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LORA: dict[str, Any] = {
    "adapter": "lora",
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "lora_target_linear": True,
}


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base"))


@pytest.fixture
def data(tmp_path: Path) -> TrainingData:
    return training_data(tmp_path / "rows", random_rows(8, longest=30))


@pytest.fixture
def held_out(tmp_path: Path) -> EvaluationData:
    return evaluation_data(tmp_path / "held_out", random_rows(5, seed=9))


def run(
    folder: Path, base: Model, data: TrainingData, held_out: EvaluationData | None = None, **settings: Any
) -> tuple[Path, Heard]:
    out, heard = workspace(folder), Heard()
    config = SftConfig(**{"learning_rate": 1e-2, "logging_steps": 1, **settings})
    sft(config, base_model=base, training_data=data, evaluation_data=held_out, out=out, report=heard.report)
    return out.data, heard


@pytest.mark.parametrize("packed", [False, True])
def test_one_by_eight_is_eight_by_one(tmp_path: Path, base: Model, packed: bool) -> None:
    data = training_data(tmp_path / "rows", random_rows(24, longest=30), packs_of(24, 3 if packed else 1))
    settings = {
        "optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "num_epochs": 3, "sample_packing": packed,
        "sequence_len": 90,
    }  # fmt: skip
    wide, heard_wide = run(tmp_path / "8x1", base, data, micro_batch_size=8, **settings)
    long, heard_long = run(tmp_path / "1x8", base, data, gradient_accumulation_steps=8, **settings)
    assert len(heard_wide.steps("loss")) == (3 if packed else 9)
    assert heard_long.steps("loss") == pytest.approx(heard_wide.steps("loss"), abs=1e-5)
    expected, found = load_file(wide / "model.safetensors"), load_file(long / "model.safetensors")
    start = load_file(base.path / "model.safetensors")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=1e-4)
        assert not torch.equal(tensor, start[name])


def test_packing_does_not_change_training(tmp_path: Path, base: Model) -> None:
    rows = random_rows(12)
    settings = {"optimizer": "sgd", "learning_rate": 0.1, "max_grad_norm": 0, "num_epochs": 1}
    single = training_data(tmp_path / "single", rows)
    packed = training_data(tmp_path / "packed", rows, packs_of(12, 3))
    # 6 rows a step, as 6 sequences or as 2 packs of 3.
    _, alone = run(tmp_path / "a", base, single, micro_batch_size=6, **settings)
    _, together = run(
        tmp_path / "b", base, packed, micro_batch_size=2, sample_packing=True, sequence_len=40, **settings
    )
    assert together.steps("loss") == pytest.approx(alone.steps("loss"), abs=1e-5)


def test_the_loss_is_that_of_a_plain_loop(tmp_path: Path, base: Model) -> None:
    rows = random_rows(6)
    data = training_data(tmp_path / "rows", rows)
    _, heard = run(
        tmp_path / "out", base, data, optimizer="sgd", lr_scheduler="constant", learning_rate=0.1, max_grad_norm=0.5,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(base.path)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):
        tokens, total = 0, torch.tensor(0.0)
        for ids, labels in rows[2 * step : 2 * step + 2]:
            logits = model(torch.tensor([ids])).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(
                logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum"
            )
            tokens += sum(label != -100 for label in labels[1:])
        loss = total / tokens
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        assert heard.steps("loss")[step + 1] == pytest.approx(float(loss), abs=1e-5)
        assert heard.steps("grad_norm")[step + 1] == pytest.approx(float(norm), rel=1e-4)


def test_monitoring_and_other_runtime_settings_leave_the_weights_alone(
    tmp_path: Path, data: TrainingData, held_out: EvaluationData
) -> None:
    base = Model(make_model(tmp_path / "dropout", attention_dropout=0.2))
    settings = {**LORA, "num_epochs": 3, "micro_batch_size": 2, "neftune_noise_alpha": 5}
    plain, _ = run(tmp_path / "plain", base, data, **settings)
    for number, runtime in enumerate(
        (
            {"eval_steps": 1, "eval_batch_size": 2},
            {"save_steps": 1, "save_total_limit": 1},
            {"save_strategy": "no", "logging_steps": 5},
            {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 1},
        )
    ):
        watched, heard = run(tmp_path / str(number), base, data, held_out, **{**settings, **runtime})
        assert folder_bytes(watched) == folder_bytes(plain), runtime
        if "eval_steps" in runtime:
            assert sorted(heard.steps("eval_loss")) == list(range(1, 13))
    other, _ = run(tmp_path / "other", base, data, **settings, seed=43)
    assert folder_bytes(other) != folder_bytes(plain), "the seed reaches dropout and the adapter"


def test_evaluation_keeps_every_random_state() -> None:
    def draw() -> tuple[float, ...]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draw()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with random_state_kept():
        draw()
    assert draw() == expected


def test_the_last_held_out_loss_is_that_of_the_saved_model(
    tmp_path: Path, base: Model, data: TrainingData, held_out: EvaluationData
) -> None:
    saved, heard = run(tmp_path / "out", base, data, held_out, eval_strategy="epoch", num_epochs=2)
    model = AutoModelForCausalLM.from_pretrained(saved)
    total = tokens = 0.0
    for ids, labels in random_rows(5, seed=9):
        count = sum(label != -100 for label in labels[1:])
        total += count * float(model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.detach())
        tokens += count
    assert heard.summary["last_eval_loss"] == pytest.approx(total / tokens, abs=1e-5)
    assert [event["title"] for event in heard.of("plot")] == [
        "Training loss",
        "Learning rate",
        "Held-out loss",
    ]


def test_a_full_model_is_saved_whole(tmp_path: Path, base: Model, data: TrainingData) -> None:
    first, heard = run(tmp_path / "first", base, data, num_epochs=2)
    again, _ = run(tmp_path / "again", base, data, num_epochs=2)
    assert folder_bytes(first) == folder_bytes(again)
    assert sorted(path.name for path in first.iterdir()) == [
        "chat_template.jinja", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert json.loads((first / "config.json").read_text())["use_cache"] is True
    for name in ("config.json", "generation_config.json"):
        assert "transformers_version" not in json.loads((first / name).read_text())
    for name, content in folder_bytes(first).items():
        assert str(tmp_path).encode() not in content, name
    model = AutoModelForCausalLM.from_pretrained(first)
    assert heard.summary["trainable_parameters"] == sum(p.numel() for p in model.parameters())
    assert heard.summary["steps"] == 16 and heard.summary["epochs"] == 2
    assert heard.summary["tokens_per_second"] > 0
    assert heard.of("progress")[-1] == {"type": "progress", "done": 16, "total": 16, "unit": "steps"}
    assert AutoTokenizer.from_pretrained(first).chat_template is not None
    losses = heard.steps("loss")
    assert heard.summary["train_loss"] == pytest.approx(sum(losses.values()) / 16)
    assert set(heard.steps("learning_rate")) == set(heard.steps("tokens_per_second")) == set(range(1, 17))


def test_an_adapter_is_saved_alone(tmp_path: Path, base: Model, data: TrainingData) -> None:
    saved, _ = run(tmp_path / "out", base, data, **LORA)
    assert sorted(path.name for path in saved.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    config = json.loads((saved / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base_model" and "peft_version" not in config
    assert config["target_modules"] == sorted(config["target_modules"])
    for name, content in folder_bytes(saved).items():
        assert str(tmp_path).encode() not in content, name
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base.path), saved)
    targets = {name for name, module in loaded.named_modules() if hasattr(module, "lora_A")}
    assert len(targets) == 14 and not any("lm_head" in name for name in targets)


def test_adapter_settings_reach_peft(tmp_path: Path, base: Model, data: TrainingData) -> None:
    saved, _ = run(
        tmp_path / "out", base, data, adapter="lora", lora_r=2, lora_alpha=6, lora_target_modules=["q_proj", "v_proj"],
        lora_modules_to_save=["lm_head"], peft_use_rslora=True, peft_layers_to_transform=[1],
        peft_init_lora_weights="gaussian", max_steps=1,
    )  # fmt: skip
    config = json.loads((saved / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (2, 6, True)
    assert (config["init_lora_weights"], config["modules_to_save"]) == ("gaussian", ["lm_head"])
    names = {
        name.removeprefix("base_model.model.") for name in load_file(saved / "adapter_model.safetensors")
    }
    layer = "model.layers.1.self_attn"
    assert names == {"lm_head.weight"} | {f"{layer}.{m}_proj.lora_{f}.weight" for m in "qv" for f in "AB"}


def test_a_regular_expression_chooses_modules(tmp_path: Path, base: Model, data: TrainingData) -> None:
    settings = {"adapter": "lora", "lora_r": 2, "lora_alpha": 2, "max_steps": 1}
    saved, _ = run(tmp_path / "out", base, data, **settings, lora_target_modules=r".*\.0\.mlp\..*_proj")
    assert len(load_file(saved / "adapter_model.safetensors")) == 6
    both, _ = run(
        tmp_path / "both", base, data, **settings, lora_target_modules=["lm_head"], lora_target_linear=True
    )
    assert len(load_file(both / "adapter_model.safetensors")) == 30


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora_target_modules": ["q_proj", "query"]}, "lora_target_modules: query: no module.*down_proj"),
        ({"lora_target_modules": "q_proj"}, "regular expression q_proj matches no whole module name"),
        (
            {"lora_target_linear": True, "lora_modules_to_save": ["head"]},
            "lora_modules_to_save: head: no module",
        ),
        (
            {"lora_target_linear": True, "peft_layers_to_transform": [0, 2]},
            "2: the model's layers are 0 to 1",
        ),
    ],
)
def test_adapter_settings_that_fit_no_module_are_refused(
    tmp_path: Path, base: Model, data: TrainingData, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        run(tmp_path / "out", base, data, adapter="lora", lora_r=2, lora_alpha=2, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw_torch"},
        {"optimizer": "adafactor"},
        {"optimizer": "sgd", "optim_args": {"momentum": 0.9, "nesterov": True}},
        {"optimizer": "adagrad"},
        {"optimizer": "rmsprop"},
        {"optimizer": "adamw_bnb_8bit"},
        {"optimizer": "paged_adamw_8bit", **LORA},
        {"optimizer": "lion_32bit"},
        {"optimizer": "muon"},
        {"adam_beta1": 0.8, "adam_beta2": 0.9, "adam_epsilon": 1e-6, "weight_decay": 0.1},
        {"lr_scheduler": "linear", "warmup_steps": 2},
        {"lr_scheduler": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
        {"lr_scheduler": "polynomial"},
        {"lr_scheduler": "constant_with_warmup", "warmup_ratio": 0.5},
        {"lr_scheduler": "inverse_sqrt"},
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler": "cosine_warmup_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
        {"bf16": True},
        {"bf16": "full"},
        {"bf16": False},
        {"float32": True},
        {"attn_implementation": "eager", "gradient_checkpointing": True},
        {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}, **LORA},
        {"neftune_noise_alpha": 5},
        {"bf16": True, **LORA},
        {"group_by_length": True, "micro_batch_size": 2},
        {"pad_to_sequence_len": True, "sequence_len": 40},
    ],
    ids=str,
)
def test_everything_offered_runs(
    tmp_path: Path, base: Model, data: TrainingData, settings: dict[str, Any]
) -> None:
    saved, heard = run(tmp_path / "out", base, data, max_steps=4, save_strategy="no", **settings)
    assert heard.summary["steps"] == 4
    weights = load_file(min(saved.glob("*.safetensors")))
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    half = settings.get("bf16") in (True, "full") and "adapter" not in settings
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16 if half else torch.float32}
    if "adapter" not in settings:
        assert json.loads((saved / "config.json").read_text())["dtype"] == ("bfloat16" if half else "float32")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw_torch_8bit", "adamw_torch_4bit"])
def test_optimizers_of_torchao_run_compiled(
    tmp_path: Path, base: Model, data: TrainingData, name: str
) -> None:
    _, heard = run(tmp_path / "out", base, data, max_steps=3, save_strategy="no", optimizer=name)
    assert heard.summary["steps"] == 3


def test_what_schedule_free_leaves_is_its_average(
    tmp_path: Path, base: Model, data: TrainingData, held_out: EvaluationData
) -> None:
    pytest.importorskip("schedulefree")
    settings = {
        "optimizer": "schedule_free_adamw",
        "lr_scheduler": "constant",
        "warmup_steps": 2,
        "max_steps": 4,
    }
    watched, heard = run(tmp_path / "watched", base, data, held_out, eval_steps=1, **settings)
    plain, _ = run(tmp_path / "plain", base, data, **settings)
    assert folder_bytes(watched) == folder_bytes(plain)
    model = AutoModelForCausalLM.from_pretrained(plain)
    rows = Rows(held_out.rows)
    # The held-out loss after the last step is that of the model which is left.
    assert heard.steps("eval_loss")[4] == pytest.approx(
        mean_loss(row_losses(model, rows, range(len(rows)), 1))
    )
    assert heard.steps("learning_rate")[1] == 1e-2


def test_gradient_checkpointing_changes_no_weight(tmp_path: Path, base: Model, data: TrainingData) -> None:
    plain, _ = run(tmp_path / "plain", base, data, **LORA)
    frugal, _ = run(tmp_path / "frugal", base, data, **LORA, gradient_checkpointing=True)
    assert folder_bytes(plain) == folder_bytes(frugal)


def test_the_learning_rate_falls_to_the_ratio(tmp_path: Path, base: Model, data: TrainingData) -> None:
    _, heard = run(tmp_path / "out", base, data, cosine_min_lr_ratio=0.1, warmup_steps=2, num_epochs=2)
    rates = heard.steps("learning_rate")
    assert rates[1] == 0 and rates[2] == pytest.approx(5e-3) and rates[3] == pytest.approx(1e-2)
    assert 1e-3 < rates[16] < 1.3e-3


def test_logging_is_averaged_between_reports(tmp_path: Path, base: Model, data: TrainingData) -> None:
    _, every = run(tmp_path / "every", base, data)
    _, third = run(tmp_path / "third", base, data, logging_steps=3)
    losses = every.steps("loss")
    assert third.steps("loss") == pytest.approx(
        {
            3: sum(losses[s] for s in (1, 2, 3)) / 3,
            6: sum(losses[s] for s in (4, 5, 6)) / 3,
            8: (losses[7] + losses[8]) / 2,
        }
    )


def test_checkpoints_are_kept_to_the_limit(tmp_path: Path, base: Model, data: TrainingData) -> None:
    run(tmp_path / "out", base, data, save_steps=2, save_total_limit=2)
    kept = {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()}
    assert kept == {"checkpoint-4", "checkpoint-6"}
    run(tmp_path / "none", base, data, save_strategy="no")
    assert not list((tmp_path / "none" / "checkpoints").iterdir())


def test_a_loss_that_breaks_down_stops_the_run(tmp_path: Path, base: Model, data: TrainingData) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 4e9, "max_grad_norm": 0, "lr_scheduler": "constant"}
    with pytest.raises(
        UserError, match=r"step 3 of 8: the loss is (nan|inf). Lower learning_rate \(here 4e\+09\)"
    ):
        run(tmp_path / "out", base, data, **settings, save_steps=1)
    kept = {path.name for path in (tmp_path / "out" / "checkpoints").iterdir()}
    assert kept == {"checkpoint-1", "checkpoint-2"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fp16": True, "bf16": False}, "fp16: true needs a GPU.*Use bf16: true"),
        ({"tf32": True}, "tf32: true needs an NVIDIA GPU"),
        ({"flash_attention": True}, "flash_attention_2 needs a GPU.*Use attn_implementation: sdpa"),
        ({"attn_implementation": "flex_attention"}, "flex_attention needs a GPU"),
    ],
)
def test_what_needs_a_gpu_is_refused_before_the_model_is_read(
    tmp_path: Path,
    data: TrainingData,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match=message):
        run(tmp_path / "out", Model(tmp_path / "no such model"), data, **settings)


@pytest.mark.parametrize(
    "targets",
    [
        {"lora_target_linear": True},
        {"lora_target_modules": "all-linear"},
        {"lora_target_modules": ["q_proj"], "lora_target_linear": True},
        {"lora_target_modules": ["q_proj", "v_proj"]},
        {"lora_target_modules": ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]},
    ],
)
def test_only_the_layers_that_are_named_get_an_adapter(
    tmp_path: Path, base: Model, data: TrainingData, targets: dict[str, Any]
) -> None:
    lora = {"adapter": "lora", "lora_r": 2, "lora_alpha": 2, "peft_layers_to_transform": [1], **targets}
    weights, _ = run(tmp_path / "out", base, data, max_steps=1, **lora)
    found = load_file(weights / "adapter_model.safetensors")
    assert found and all(".layers.1." in name for name in found)


def test_evaluations_without_held_out_rows_ask_for_nothing(
    tmp_path: Path, base: Model, data: TrainingData
) -> None:
    asked = {"evals_per_epoch": 1, "has_held_out_rows": False}
    weights, heard = run(tmp_path / "asked", base, data, max_steps=2, **asked)
    plain, _ = run(tmp_path / "plain", base, data, max_steps=2)
    assert not heard.steps("eval_loss") and folder_bytes(weights) == folder_bytes(plain)


def test_empty_training_data_is_refused(tmp_path: Path, base: Model) -> None:
    with pytest.raises(UserError, match="the training data has no row to train on"):
        run(tmp_path / "out", base, training_data(tmp_path / "empty", []))


def test_a_model_whose_packed_rows_leak_is_refused(tmp_path: Path, data: TrainingData) -> None:
    torch.manual_seed(0)
    folder = tmp_path / "mamba"
    MambaForCausalLM(MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1)).save_pretrained(
        folder
    )
    make_tokenizer(folder)
    with pytest.raises(SettingError, match="in MambaForCausalLM the rows of a sequence see each other"):
        run(tmp_path / "out", Model(folder), data, sample_packing=True, sequence_len=40)
