"""A student learns from a teacher's probabilities what it does not from the same rows alone."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.teachers import taught
from support.tiny_model import Heard, make_model, training_data, workspace
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.data.rows.mapped import Rows
from tunemill.stages.evaluation.answers.divergence_body import divergences, mean_divergence
from tunemill.stages.training.distillation.body import distillation
from tunemill.stages.training.distillation.config import DistillationConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

STATES, FIRST = 16, 10
SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-2, "micro_batch_size": 32, "num_epochs": 25, "save_strategy": "no", "warmup_ratio": 0.1,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def frozen_garbage() -> Iterator[None]:
    # Each training collects garbage twice, most of its time, unless the libraries are left out of that.
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def markov(folder: Path) -> Any:
    """A model of which each token follows from the one before it alone, by probabilities that are far from sure."""
    make_model(folder, num_hidden_layers=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        words, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        words.normal_()
        head.normal_(std=0.3)
        # One coordinate says of all other tokens that they never come.
        words[:, 0] = 3.0
        head[:, 0] = -10.0
        head[FIRST : FIRST + STATES, 0] = 0.0
    model.save_pretrained(folder)
    return model.eval()


def sampled(model: Any, count: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Rows of 12 tokens that the model writes, all but the first trained."""
    random = torch.Generator().manual_seed(seed)
    ids_bl = torch.randint(FIRST, FIRST + STATES, (count, 1), generator=random)
    for _ in range(11):
        with torch.no_grad():
            p_bv = model(ids_bl).logits[:, -1].softmax(-1)
        ids_bl = torch.cat([ids_bl, torch.multinomial(p_bv, 1, generator=random)], dim=1)
    return [(ids, [-100, *ids[1:]]) for ids in ids_bl.tolist()]


@pytest.mark.slow
def test_a_students_divergence_is_a_third_of_supervised_trainings_at_most(tmp_path: Path) -> None:
    teacher = markov(tmp_path / "teacher")
    base = Model(make_model(tmp_path / "base"))
    data = training_data(tmp_path / "data", sampled(teacher, 96, seed=1))
    held_out = Rows(training_data(tmp_path / "held-out", sampled(teacher, 50, seed=2)).rows)
    said = taught(tmp_path / "said", tmp_path / "teacher", data, top_k=STATES)
    out, heard = {name: workspace(tmp_path / name) for name in ("sft", "kd")}, Heard()
    sft(SftConfig(**SETTINGS), base, data, None, out["sft"], heard.report)
    given = DistillationConfig(**SETTINGS, kd_normalize_topk=False)
    distillation(given, base, data, [said], None, out["kd"], heard.report)
    found = {}
    for name, folder in {"base": base.path, **{name: one.data for name, one in out.items()}}.items():
        student = AutoModelForCausalLM.from_pretrained(folder).eval()
        kl = divergences(student, teacher, held_out, range(len(held_out)), 16, 400)
        found[name] = mean_divergence(kl)["teacher_kl"]
    print(found)
    assert found["kd"] < found["sft"] / 3 and found["kd"] < found["base"] / 20, found


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    teacher = markov(tmp_path / "teacher")
    rows = Rows(training_data(tmp_path / "data", sampled(teacher, 5, seed=1)).rows)
    found = divergences(teacher, teacher, rows, [3, 0], 1, 400)
    assert [(one.total, one.agreed, one.tokens) for one in found] == [(0.0, 11, 11)] * 2
    assert found[0].figures == {"teacher_kl": 0.0, "teacher_agreement": 1.0}


def test_by_definition_and_for_any_batch_size(tmp_path: Path) -> None:
    teacher = markov(tmp_path / "teacher")
    student = AutoModelForCausalLM.from_pretrained(make_model(tmp_path / "student")).eval()
    rows = sampled(teacher, 4, seed=1)
    rows[1] = (rows[1][0][:7], rows[1][1][:7])
    read = Rows(training_data(tmp_path / "data", rows).rows)
    found = divergences(student, teacher, read, range(4), 4, 400)
    for (ids, _), one in zip(rows, found, strict=True):
        with torch.no_grad():
            q_lv, p_lv = (
                m(torch.tensor([ids])).logits[0, :-1, :400].log_softmax(-1) for m in (student, teacher)
            )
        assert one.total == pytest.approx(float((p_lv.exp() * (p_lv - q_lv)).sum()), rel=1e-4)
        assert one.agreed == int((p_lv.argmax(-1) == q_lv.argmax(-1)).sum()) and one.tokens == len(ids) - 1
    alone = divergences(student, teacher, read, range(4), 1, 400)
    assert [one.total for one in alone] == pytest.approx([one.total for one in found], rel=1e-5)
