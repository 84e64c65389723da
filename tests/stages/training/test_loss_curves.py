"""The loss of each step is that of a loop written by hand: for LoRA, each scheduler and three optimizers.

And that of the curves which are kept in `tests/assets/losses/`. To record them anew:
`python tests/stages/training/test_loss_curves.py`, with `tests` and the project on the path.
"""

import gc
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_model import Heard, make_model, random_rows, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.training.adapters.lora_body import add_adapter
from tunemill.stages.training.schedules.table import SCHEDULERS
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

KEPT = Path(__file__).parents[2] / "assets" / "losses" / "curves.json"
SMALL = {"num_hidden_layers": 1, "hidden_size": 16, "intermediate_size": 24}
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
STEPS, WARMUP, PEAK = 6, 2, 0.1


def after(step: int) -> float:
    """How much of what follows the warmup is over."""
    return (step - WARMUP) / (STEPS - WARMUP)


def half_cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def warmed(fall: Callable[[int], float]) -> list[float]:
    return [step / WARMUP if step < WARMUP else fall(step) for step in range(STEPS)]


# Each scheduler's factors by hand, with WARMUP steps of warmup in STEPS steps, and the settings that it needs.
FACTORS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "linear": ({}, warmed(lambda step: 1 - after(step))),
    "cosine": ({}, warmed(lambda step: half_cosine(after(step)))),
    "cosine_with_restarts": (
        {"lr_scheduler_kwargs": {"num_cycles": 2}},
        warmed(lambda step: half_cosine(2 * after(step) % 1)),
    ),
    "polynomial": (
        {"lr_scheduler_kwargs": {"power": 2.0, "lr_end": 0.02}},
        warmed(lambda step: 0.2 + 0.8 * (1 - after(step)) ** 2),
    ),
    "constant": ({"warmup_steps": 0}, [1.0] * STEPS),
    "constant_with_warmup": ({}, warmed(lambda _: 1.0)),
    "inverse_sqrt": ({}, warmed(lambda step: math.sqrt(WARMUP / step))),
    "cosine_with_min_lr": (
        {"lr_scheduler_kwargs": {"min_lr": 0.01}},
        warmed(lambda step: 0.1 + 0.9 * half_cosine(after(step))),
    ),
    # It is one step ahead, in its rise and in its fall.
    "cosine_warmup_with_min_lr": (
        {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        [0.5, 1.0, *(0.1 + 0.9 * half_cosine(after(step + 1)) for step in range(WARMUP, STEPS))],
    ),
    "warmup_stable_decay": (
        {"lr_scheduler_kwargs": {"num_decay_steps": 2, "decay_type": "linear"}},
        [0.0, 0.5, 1.0, 1.0, 1.0, 0.5],
    ),
    "one_cycle": (
        {"lr_scheduler_kwargs": {"cycle_momentum": False}},
        [0.04, 1.0, *(4e-6 + (1 - 4e-6) * half_cosine(fallen / 4) for fallen in (1, 2, 3, 4))],
    ),
    "rex": ({}, [0.5, 1.0, *((left / 4) / (0.1 + 0.9 * left / 4) for left in (3, 2, 1, 0))]),
    "log_sweep": (
        {"warmup_steps": 0, "lr_scheduler_kwargs": {"min_lr": 0.001}},
        [0.01 * 100 ** (step / 5) for step in range(STEPS)],
    ),
}


@pytest.fixture(autouse=True, scope="module")
def libraries_kept() -> Iterator[None]:
    # Each training collects garbage twice, most of its time, unless the libraries are left out of that.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base", **SMALL)


def losses(folder: Path, base: Path, settings: dict[str, Any]) -> list[float]:
    """Of each step, as it is reported."""
    data, heard = training_data(folder / "rows", random_rows(STEPS)), Heard()
    config = SftConfig(**settings)
    sft(config, Model(base), data, None, workspace(folder / "out"), heard.report)
    return list(heard.steps("loss").values())


def by_hand(
    base: Path, settings: dict[str, Any], factors: list[float], make: Callable[[Any], Any]
) -> list[float]:
    """A row a step, gradients as they are."""
    model = AutoModelForCausalLM.from_pretrained(base)
    if "adapter" in settings:
        model = add_adapter(SftConfig(**settings), model, 42)
    optimizer, found = make([one for one in model.parameters() if one.requires_grad]), []
    for (ids, labels), factor in zip(random_rows(STEPS), factors, strict=True):
        optimizer.zero_grad()
        logits = model(torch.tensor([ids])).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100)
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = PEAK * factor
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def settings_of(**changes: Any) -> dict[str, Any]:
    # Rows in their order, one a step.
    return {
        "learning_rate": PEAK, "max_grad_norm": 0, "logging_steps": 1, "save_strategy": "no", "num_epochs": 1,
        "warmup_steps": WARMUP, "bf16": False, "curriculum_sampling": True, **changes,
    }  # fmt: skip


# Those that follow held-out rows have their loops in schedules/.
@pytest.mark.parametrize("name", [name for name, one in SCHEDULERS.items() if not one.follows_held_out])
def test_every_scheduler_with_lora(tmp_path: Path, base: Path, name: str) -> None:
    more, factors = FACTORS[name]
    settings = settings_of(**LORA, optimizer="sgd", lr_scheduler=name, **more)
    expected = by_hand(base, settings, factors, lambda trained: torch.optim.SGD(trained, lr=PEAK))
    assert losses(tmp_path, base, settings) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "make"),
    [
        (
            {"optimizer": "adamw_torch", "adam_beta1": 0.8},
            lambda p: torch.optim.AdamW(p, betas=(0.8, 0.999), weight_decay=0),
        ),
        ({"optimizer": "rmsprop", "optim_args": {"alpha": 0.9}}, lambda p: torch.optim.RMSprop(p, alpha=0.9)),
        (
            {"optimizer": "sgd", "optim_args": "momentum=0.9, nesterov=true"},
            lambda p: torch.optim.SGD(p, lr=PEAK, momentum=0.9, nesterov=True),
        ),
    ],
    ids=["adamw", "rmsprop", "sgd"],
)  # fmt: skip
@pytest.mark.parametrize("adapter", [{}, LORA], ids=["full", "lora"])
def test_optimizers(
    tmp_path: Path, base: Path, changes: dict[str, Any], make: Any, adapter: dict[str, Any]
) -> None:
    settings = settings_of(**adapter, lr_scheduler="linear", **changes)
    expected = by_hand(base, settings, FACTORS["linear"][1], make)
    assert losses(tmp_path, base, settings) == pytest.approx(expected, abs=1e-6)


CURVES: dict[str, dict[str, Any]] = {
    "full": settings_of(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=1.0),
    "lora": settings_of(**LORA, learning_rate=1e-2, lora_dropout=0.1, neftune_noise_alpha=5),
    "adamw_bnb_8bit": settings_of(learning_rate=1e-2, optimizer="adamw_bnb_8bit"),
    "muon": settings_of(learning_rate=1e-2, optimizer="muon", lr_scheduler="rex"),
    "accumulated": settings_of(
        learning_rate=1e-2, gradient_accumulation_steps=2, num_epochs=2, curriculum_sampling=False
    ),
}


@pytest.mark.parametrize("name", CURVES)
def test_curves_stay(tmp_path: Path, base: Path, name: str) -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))[name]
    # Processors differ in the last bits, and the orthogonal steps of Muon are computed in bfloat16.
    tolerance = 1e-3 if name == "muon" else 1e-5
    assert losses(tmp_path, base, CURVES[name]) == pytest.approx(kept, abs=tolerance)


def record() -> None:
    """Write the curves of this code; to be looked at in the difference of the commit."""
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "base", **SMALL)
        found = {name: losses(Path(folder) / name, model, given) for name, given in CURVES.items()}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    KEPT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
