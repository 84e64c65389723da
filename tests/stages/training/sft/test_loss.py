"""The loss of EAFT by hand, however a step is cut, and beside what computes the loss in another way."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.tiny_model import Heard, make_model, packs_of, random_rows, training_data, workspace
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.sft.loss import entropy_weighted, top_entropy
from tunemill.stages.training.texts_body import trained_tokens

ROWS = random_rows(4)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("base") / "base", hidden_size=16, intermediate_size=24)


def says(logits: torch.Tensor) -> Any:
    return lambda **_inputs: SimpleNamespace(logits=logits)


def test_the_loss_of_two_tokens_by_hand() -> None:
    # Of the four tokens the two largest are 3 to 1, then 1 to 1; the third place is not trained.
    logits = torch.tensor([[[3.0, 1.0, 0.5, 0.5], [2.0, 2.0, 0.1, 0.1], [9.0, 1.0, 1.0, 1.0]]]).log()
    logits.requires_grad_()
    batch = {"input_ids": torch.zeros(1, 3, dtype=torch.long), "labels": torch.tensor([[-100, 1, 0]])}
    entropies = 0.75 * math.log(4 / 3) + 0.25 * math.log(4), math.log(2)
    losses = math.log(5 / 1), math.log(4.2 / 2)
    for alpha in (0.0, 1.0, 2.0):
        parts = entropy_weighted(says(logits), batch, alpha=alpha, k=2)
        expected = sum(h**alpha * loss for h, loss in zip(entropies, losses, strict=True))
        assert float(parts.totals["tokens"]) == pytest.approx(expected, rel=1e-6)
    assert float(parts.metrics["token_entropy"][0]) == pytest.approx(sum(entropies), rel=1e-6)
    assert trained_tokens(batch) == {"tokens": 2}
    # The weight is a number: the gradient is that of cross entropy, times it.
    (found,) = torch.autograd.grad(parts.totals["tokens"], logits)
    first = torch.tensor([3.0, 1.0, 0.5, 0.5]) / 5 - torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert torch.allclose(found[0, 0], entropies[0] ** 2 * first) and not found[0, 2].any()


def test_entropy_at_the_ends() -> None:
    certain = torch.tensor([[0.0, -math.inf, -math.inf], [1000.0, 0.0, 0.0]])
    assert top_entropy(certain, 20).tolist() == [0.0, 0.0]
    assert top_entropy(torch.zeros(1, 50), 20).item() == pytest.approx(math.log(20))
    assert top_entropy(torch.zeros(1, 3), 20).item() == pytest.approx(math.log(3))


def train(folder: Path, base: Path, packs: list[list[int]] | None = None, **settings: Any) -> Heard:
    heard = Heard()
    given = {"learning_rate": 1e-2, "optimizer": "sgd", "logging_steps": 1, "max_steps": 1, **settings}
    data = training_data(folder / "rows", ROWS, packs)
    sft(SftConfig(**given), Model(base), data, None, workspace(folder), heard.report)
    return heard


def by_hand(base: Path, k: int) -> float:
    model, total, tokens = AutoModelForCausalLM.from_pretrained(base), 0.0, 0
    for ids, labels in ROWS:
        targets = torch.tensor(labels[1:])
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, :-1]
        losses = cross_entropy(logits, targets, ignore_index=-100, reduction="none")
        for place, loss in enumerate(losses.tolist()):
            top = sorted(logits[place].tolist(), reverse=True)[:k]
            shares = [math.exp(one - top[0]) / sum(math.exp(other - top[0]) for other in top) for one in top]
            total += -sum(share * math.log(share) for share in shares) * loss
        tokens += int((targets != -100).sum())
    return total / tokens


@pytest.mark.parametrize("size", [1, 4])
def test_a_step_has_the_same_loss_however_it_is_cut(tmp_path: Path, base: Path, size: int) -> None:
    batches = {"micro_batch_size": size, "gradient_accumulation_steps": 4 // size}
    heard = train(tmp_path, base, use_eaft=True, eaft_k=5, **batches)
    assert heard.steps("loss")[1] == pytest.approx(by_hand(base, 5), rel=1e-5)
    assert 0 < heard.steps("token_entropy")[1] < math.log(5)


def test_packed_rows_have_the_same_loss(tmp_path: Path, base: Path) -> None:
    packed = {
        "sample_packing": True,
        "sequence_len": 64,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 2,
    }
    heard = train(tmp_path, base, packs_of(4, 2), use_eaft=True, eaft_k=5, **packed)
    assert heard.steps("loss")[1] == pytest.approx(by_hand(base, 5), rel=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunked_cross_entropy": True},
        {"cut_cross_entropy": True},
        {"liger_cross_entropy": True},
        {"kernels": ["linear_cross_entropy"]},
        {"plugins": ["cut_cross_entropy"]},
        {"trainer_cls": "mine.Mine", "trainer_code": ["/mine.py"]},
    ],
)
def test_another_loss_beside_it_is_refused(settings: dict[str, Any]) -> None:
    SftConfig(learning_rate=1, **settings)
    with pytest.raises(ValidationError, match=r"computes another loss\. Keep one"):
        SftConfig(learning_rate=1, use_eaft=True, **settings)


def test_its_settings_without_it_ask_for_nothing() -> None:
    idle = SftConfig(learning_rate=1, eaft_alpha=2, eaft_k=3)
    assert {item.key for item in idle.idle()} == {"eaft_alpha", "eaft_k"}
    assert idle.semantic() == SftConfig(learning_rate=1).semantic()
