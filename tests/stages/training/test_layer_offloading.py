"""Frozen layers that wait in main memory: here the device that they are copied to is main memory as well.

tests/gpu/test_layer_offloading.py has the same on a GPU.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from pydantic import ValidationError
from safetensors.torch import load_file
from support.quantized import make_base, quantized
from support.tiny_model import (
    Heard,
    evaluation_data,
    folder_bytes,
    make_model,
    random_rows,
    tiny_config,
    training_data,
    workspace,
)
from support.trained_families import make_folder
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM, TrainingArguments

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.collate_body import Collator
from tunemill.stages.errors import SettingError
from tunemill.stages.models.loading_body import load_causal_lm
from tunemill.stages.training.layer_offloading_body import (
    LAYERS_AT_ONCE,
    LayerOffloading,
    WaitingLayers,
    recomputed_layers,
    waiting_bytes,
)
from tunemill.stages.training.loop_body import LoopTrainer
from tunemill.stages.training.memory_body import Offloading
from tunemill.stages.training.optimizers.build_body import build_optimizer
from tunemill.stages.training.plugins_body import Plugins
from tunemill.stages.training.schedule import make_schedule
from tunemill.stages.training.schedules.build_body import build_scheduler
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.shares import Share

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
SETTINGS: dict[str, Any] = {"learning_rate": 1e-2, "max_steps": 3, "save_strategy": "no", **LORA}


def adapted(layers: int = 4, *, dropout: float = 0.1) -> Any:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(num_hidden_layers=layers))
    config = LoraConfig(r=4, lora_dropout=dropout, target_modules="all-linear", init_lora_weights=False)
    return get_peft_model(model, config).train()


def places(model: Any) -> list[list[int]]:
    """Where the frozen parameters of each layer lie."""
    return [
        [one.data_ptr() for one in layer.parameters() if not one.requires_grad]
        for layer in recomputed_layers(model)
    ]


def losses_of(model: Any, offloading: LayerOffloading | None, steps: int = 3) -> list[float]:
    """A few steps of AdamW; with `offloading` as the Trainer would call it."""
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    ids = torch.randint(3, 400, (2, 16), generator=torch.Generator().manual_seed(1))
    if offloading is not None:
        offloading.on_train_begin(None, None, None, model=model)
    found = []
    for _ in range(steps):
        torch.manual_seed(len(found))
        if offloading is None:
            loss = model(input_ids=ids, labels=ids).loss
        else:
            with offloading.of(model):
                loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(float(loss))
    return found


RECOMPUTES = {"kept": None, "new": {"use_reentrant": False}, "reentrant": {"use_reentrant": True}}


@pytest.mark.parametrize("recomputes", RECOMPUTES)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside activations"])
def test_the_losses_are_the_same_bit_by_bit(tmp_path: Path, recomputes: str, beside: bool) -> None:
    plain, waiting = adapted(), adapted()
    for model in (plain, waiting):
        if RECOMPUTES[recomputes] is not None:
            model.gradient_checkpointing_enable(RECOMPUTES[recomputes])
            model.enable_input_require_grads()
    disk = Offloading("disk", tmp_path) if beside else None
    offloading = LayerOffloading(Heard().report, disk, CPU)
    expected = losses_of(plain, None)
    assert losses_of(waiting, offloading) == expected and len(set(expected)) == 3
    assert disk is None or disk.moved > 0
    ours, theirs = (dict(model.named_parameters()) for model in (waiting, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_weights_are_there_only_while_they_are_used() -> None:
    model = adapted(6, dropout=0.0)
    waiting = WaitingLayers(model, CPU)
    resting, seen = places(model), list[list[int]]()

    def look(*_: Any) -> None:
        seen.append([number for number, place in enumerate(places(model)) if place != resting[number]])

    for layer in recomputed_layers(model):
        layer.self_attn.register_forward_pre_hook(look)
    ids = torch.randint(3, 400, (1, 8))
    with torch.no_grad():
        model(input_ids=ids)
    assert seen == [[0], [1], [2], [3], [4], [5]]
    assert waiting.copies == 6 and len(waiting._copies) <= LAYERS_AT_ONCE
    seen.clear()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model(input_ids=ids, labels=ids).loss.backward()
    assert seen == [[0], [1], [2], [3], [4], [5], [5], [4], [3], [2], [1], [0]]
    assert places(model) == resting, "all wait again"
    # Down from the last layer, which is still there.
    assert waiting.copies == 6 + 6 + 5 and len(waiting._copies) <= LAYERS_AT_ONCE


def test_a_graph_keeps_no_weights() -> None:
    model = adapted(6, dropout=0.0)
    offloading = LayerOffloading(Heard().report, None, CPU)
    offloading.on_train_begin(None, None, None, model=model)
    waiting = offloading.layers
    assert waiting is not None
    copies: dict[int, list[StorageWeakRef]] = {}

    def remember(*_: Any) -> None:
        for layer, made in waiting._copies.items():
            copies.setdefault(layer, [StorageWeakRef(one.untyped_storage()) for one in made])

    for layer in recomputed_layers(model):
        layer.self_attn.register_forward_pre_hook(remember)
    ids = torch.randint(3, 400, (1, 8))
    with offloading.of(model):
        loss = model(input_ids=ids, labels=ids).loss
    alive = {layer for layer, made in copies.items() if not all(one.expired() for one in made)}
    assert copies.keys() == set(range(6)) and alive == waiting._copies.keys() == {5}
    loss.backward()
    assert len(waiting._copies) <= LAYERS_AT_ONCE


def test_what_is_read_of_the_model_is_whole_and_in_the_end_all_is_as_before() -> None:
    expected = adapted(6, dropout=0.0).state_dict()
    model = adapted(6, dropout=0.0)
    waiting = WaitingLayers(model, CPU)
    ids = torch.ones(1, 4, dtype=torch.long)
    model(input_ids=ids)
    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    waiting.remove()
    assert all(torch.equal(one, expected[name]) for name, one in model.state_dict().items())
    copies = waiting.copies
    model(input_ids=ids)
    assert waiting.copies == copies > 0, "no hook is left"


@pytest.mark.parametrize("family", ["qwen3_moe", "lfm2"])
def test_families_have_layers_that_wait(tmp_path: Path, family: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(make_folder(family, tmp_path / family)).eval()
    ids = torch.randint(3, 100, (1, 8))
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        model.requires_grad_(False)
        waiting = WaitingLayers(model, CPU)
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert waiting.copies == len(recomputed_layers(model)) == model.config.num_hidden_layers


def test_bytes_that_wait_are_those_of_all_layers_but_three() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(num_hidden_layers=5))
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear"))
    # Attention 4 x 32 x 32, MLP 3 x 32 x 64, two norms of 32; float32.
    assert waiting_bytes(model) == (5 - 3) * 4 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32)


def test_without_a_gpu_nothing_waits_and_the_result_is_the_same(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    found = []
    for waits in (False, True):
        out, heard = workspace(tmp_path / str(waits)), Heard()
        rows = training_data(tmp_path / f"rows-{waits}", random_rows(8))
        held_out = evaluation_data(tmp_path / f"held-{waits}", random_rows(3))
        config = SftConfig(**SETTINGS, layer_offloading=waits, eval_steps=2)
        sft(config, Model(base), rows, held_out, out, heard.report)
        found.append(folder_bytes(out.data))
        said = any("no device to offload from" in event["message"] for event in heard.of("log"))
        assert said is (waits and not torch.cuda.is_available())
    assert found[0] == found[1] and "adapter_model.safetensors" in found[0]


def trained(folder: Path, offloading: LayerOffloading | None) -> tuple[list[float], dict[str, Any]]:
    """What the loop's Trainer logs, and the adapter that it saves after the second step."""
    model, config = adapted(), SftConfig(**SETTINGS)
    trainer = LoopTrainer(
        own_loss=None,
        offloading=offloading,
        share=Share(make_schedule(6, 2, 1, 1, 3), 2),
        make_optimizer=partial(build_optimizer, config, warmup=0),
        make_scheduler=partial(build_scheduler, config, warmup=0),
        plugins=Plugins([], 0),
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), per_device_train_batch_size=2, max_steps=3, save_steps=2, logging_steps=1, seed=1,
            save_strategy="steps", learning_rate=1e-2, use_cpu=True, report_to="none", remove_unused_columns=False,
            disable_tqdm=True, gradient_checkpointing=True,
        ),
        train_dataset=random_rows(6, longest=14),
        data_collator=lambda rows: Collator("padded", None)(
            [[(np.asarray(ids, np.int32), np.asarray(labels, np.int32))] for ids, labels in rows]
        ),
        callbacks=[] if offloading is None else [offloading],
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 3
    return losses, load_file(folder / "checkpoint-2" / "adapter_model.safetensors")


@pytest.mark.slow
def test_a_whole_training_and_its_checkpoints_are_the_same(tmp_path: Path) -> None:
    heard = Heard()
    losses, saved = trained(tmp_path / "plain", None)
    found, kept = trained(tmp_path / "waiting", LayerOffloading(heard.report, None, CPU))
    assert found == losses and kept.keys() == saved.keys()
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    (said,) = heard.of("log")
    assert "frozen weights of 4 layers" in said["message"]


@pytest.mark.slow
def test_layers_of_four_bits_wait(tmp_path: Path) -> None:
    base, _ = quantized(tmp_path / "quantized", make_base(tmp_path / "base", num_hidden_layers=3))
    found = []
    for offloading in (None, LayerOffloading(Heard().report, None, CPU)):
        torch.manual_seed(0)
        model = load_causal_lm(base.path, dtype=torch.float32, compute_type=torch.float32)
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
        model.train().gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
        found.append(losses_of(model, offloading))
        if offloading is not None:
            assert offloading.layers is not None and offloading.layers.copies == 3 + 2 + 2 * (2 + 2)
    assert found[0] == found[1] and len(set(found[0])) == 3


WHOLE = {"adapter": None, "lora_r": None, "lora_alpha": None, "lora_target_linear": None}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (WHOLE, "Set adapter: lora"),
        ({"relora": True, "jagged_restart_steps": 5}, "folds the adapter into weights"),
        ({"load_in_8bit": True}, "Use load_in_4bit"),
        ({"load_in_4bit": True}, "Set gradient_checkpointing: true"),
        ({"torch_compile": True}, "compiled layers"),
    ],
    ids=str,
)
def test_what_layers_cannot_wait_beside_is_refused(settings: dict[str, Any], message: str) -> None:
    given = {name: value for name, value in {**SETTINGS, **settings}.items() if value is not None}
    with pytest.raises(ValidationError, match=message):
        SftConfig(**given, layer_offloading=True)


def test_a_model_without_frozen_layers_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(SettingError, match="layer_offloading: false"):
        LayerOffloading(Heard().report, None, CPU).on_train_begin(None, None, None, model=model)
