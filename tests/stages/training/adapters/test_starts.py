"""Starts of an adapter that change the base, or look at data: what is trained is what is stored, merged and resumed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from safetensors.torch import load_file
from stages.training.adapters.adapted import LINEAR, ROWS, llama, merged, train, train_and_merge
from stages.training.adapters.test_kinds import gpt2
from support.pairs import echoes, preference_data
from support.tiny_model import Heard, folder_bytes, training_data, workspace
from support.variants import first_in_ci
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Adapter, BaseModel, Model
from tunemill.stages.errors import SettingError
from tunemill.stages.evaluation.loading_body import load_answering
from tunemill.stages.models.probe_body import fixed_tokens, logits_of
from tunemill.stages.report import Report
from tunemill.stages.training.keys.factors import FILE
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig

LOFTQ: dict[str, Any] = {"peft": {"loftq_config": {"loftq_bits": 4}}}
Q_PROJ = "model.layers.0.self_attn.q_proj.weight"
FACTOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def weights_of(folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def in_4_bits(weight: torch.Tensor) -> torch.Tensor:
    return dequantize_4bit(*quantize_4bit(weight.float(), blocksize=64, quant_type="nf4"))


def factors_of(adapter: Adapter) -> tuple[torch.Tensor, torch.Tensor]:
    stored = weights_of(adapter.path, "adapter_model.safetensors")
    return stored[FACTOR.format("A")], stored[FACTOR.format("B")]


@pytest.mark.parametrize("variant", [{}, {"peft_use_dora": True}], ids=str)
def test_loftq_merges_into_the_rounded_base(tmp_path: Path, variant: dict[str, Any]) -> None:
    base = llama(tmp_path / "base")
    data, trained, heard = train_and_merge(tmp_path, base, **LINEAR, **LOFTQ, **variant)
    assert trained.summary["start_logit_difference"] < 1e-4
    assert (trained.summary["loftq_bits"], trained.summary["loftq_modules"]) == (4, 14)
    assert heard.summary["changed_tensors"] == 14
    if not variant:
        a, b = factors_of(Adapter(tmp_path / "trained" / "data"))
        expected = in_4_bits(weights_of(base.path)[Q_PROJ]) + 2 * b @ a
        torch.testing.assert_close(weights_of(data)[Q_PROJ], expected)


def test_loftq_begins_with_what_rounding_lost(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    adapter, heard = train(tmp_path / "one", base, steps=1, learning_rate=1e-12, **LINEAR, **LOFTQ)
    weight = weights_of(base.path)[Q_PROJ]
    lost = weight - in_4_bits(weight)
    a, b = factors_of(adapter)
    # The best product of rank 4, whatever it is multiplied by: here with 8 / 4.
    left, values, right = torch.linalg.svd(lost)
    torch.testing.assert_close(2 * b @ a, left[:, :4] * values[:4] @ right[:4], rtol=1e-3, atol=1e-5)
    assert 0.5 < heard.summary["loftq_error_left"] < 0.95
    _, finer = train(tmp_path / "8", base, steps=1, **LINEAR, peft={"loftq_config": {"loftq_bits": 8}})
    _, plain = train(tmp_path / "plain", base, steps=1, **LINEAR)
    first = [each.steps("loss")[1] for each in (heard, finer, plain)]
    assert abs(first[1] - first[2]) < abs(first[0] - first[2])


def test_loftq_is_loaded_beside_the_rounded_base(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    adapter, _ = train(tmp_path / "trained", base, **LINEAR, **LOFTQ)
    data, _ = merged(tmp_path / "merged", base, adapter)
    model, _ = load_answering(base, adapter)
    expected = AutoModelForCausalLM.from_pretrained(data)
    ids = fixed_tokens(expected.config.vocab_size)
    torch.testing.assert_close(logits_of(model, ids), logits_of(expected, ids), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("tied", "targets", "reason"),
    [
        (True, ["lm_head"], "are one tensor"),
        (False, ["embed_tokens"], "is for linear modules, and an embedding"),
    ],
)
def test_weights_that_loftq_cannot_round(tmp_path: Path, tied: bool, targets: list[str], reason: str) -> None:
    base: BaseModel = llama(tmp_path / "base", tie_word_embeddings=tied)
    with pytest.raises(SettingError, match=reason):
        train(tmp_path / "a", base, lora_target_modules=targets, **LOFTQ)


FROM_DATA = ("corda", "eva", "lora_ga")
QUERIES: dict[str, Any] = {"lora_target_modules": ["q_proj"]}


def first_factors(folder: Path, base: Model, **settings: Any) -> list[torch.Tensor]:
    """Those of the first query projection, in a checkpoint; its steps move nothing. EVA finds one of the two."""
    train(
        folder, base, steps=2, **{"learning_rate": 1e-12, "save_steps": 1, "save_strategy": None, **settings}
    )
    stored = load_file(next(folder.rglob(FILE)))
    return [stored[FACTOR.format(which)] for which in "AB" if FACTOR.format(which) in stored]


def said(heard: Heard) -> str:
    return " ".join(event["message"] for event in heard.of("log"))


@pytest.mark.parametrize("start", FROM_DATA)
@pytest.mark.parametrize("variant", first_in_ci({}, {"peft_use_dora": True}), ids=str)
def test_starts_from_data_learn_and_merge(tmp_path: Path, start: str, variant: dict[str, Any]) -> None:
    base = llama(tmp_path / "base", dtype=torch.bfloat16)
    settings = {**LINEAR, **variant, "peft_init_lora_weights": start, "lora_rank_pattern": {"q_proj": 2}}
    settings |= {"lora_r": 8, "lora_alpha": 16}
    _, trained, heard = train_and_merge(tmp_path, base, steps=40, **settings)
    losses = trained.steps("loss")
    assert losses[1] > 4 and losses[40] < 0.2 * losses[1]
    assert heard.summary["adapter_tensors_used"] == (42 if variant else 28)
    assert f"{start}: started from 4 sequences of training data" in said(trained)
    # Before the first step the model is the base.
    _, plain = train(tmp_path / "plain", base, steps=1, **LINEAR)
    assert losses[1] == pytest.approx(plain.steps("loss")[1], rel=5e-2)


def inputs_of_queries(base: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """[tokens, in] the inputs of the first query projection, and the mean loss's gradient of its weight."""
    model = AutoModelForCausalLM.from_pretrained(base.path)
    projection = model.model.layers[0].self_attn.q_proj
    seen: list[torch.Tensor] = []
    projection.register_forward_hook(lambda _module, given, _out: seen.append(given[0][0].detach()))
    total, trained = torch.zeros(()), 0
    for ids, labels in ROWS:
        wanted = torch.tensor([[-100, *labels[1:]]])
        count = int((wanted != -100).sum())
        total = total + model(input_ids=torch.tensor([ids]), labels=wanted).loss * count
        trained += count
        seen[-1] = seen[-1][wanted[0] != -100]
    (total / trained).backward()
    return torch.cat(seen), projection.weight.grad


def test_lora_ga_starts_with_the_gradient_of_one_step(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    _, gradient = inputs_of_queries(base)
    a, b = first_factors(tmp_path / "ga", base, **QUERIES, peft_init_lora_weights="lora_ga")
    left, values, right = torch.linalg.svd(gradient)
    torch.testing.assert_close((a @ right[:4].T).abs(), torch.eye(4), rtol=0, atol=1e-3)
    # ArB2r: the first factor has the first 4 vectors, the second the next 4, scaled by out ** 0.25 / gamma ** 0.5.
    scaled = left[:, 4:8] * values[4:8] * len(gradient) ** 0.25 / 4
    torch.testing.assert_close(b.abs(), scaled.abs(), rtol=1e-2, atol=1e-5)


def test_eva_starts_with_what_the_inputs_vary_most_in(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    inputs, _ = inputs_of_queries(base)
    settings = {**QUERIES, "lora_r": 2, "peft_init_lora_weights": "eva"}
    (a,) = first_factors(tmp_path / "eva", base, **settings, peft={"eva_config": {"rho": 1}})
    _, _, right = torch.linalg.svd(inputs - inputs.mean(0))
    assert float((a[0] @ right[0]).abs()) > 0.9


@pytest.mark.parametrize("start", FROM_DATA)
def test_padding_and_batches_change_no_start(tmp_path: Path, start: str) -> None:
    base = llama(tmp_path / "base")
    settings = {**QUERIES, "peft_init_lora_weights": start}
    expected = first_factors(tmp_path / "one", base, **settings, micro_batch_size=1)
    padded = {"pad_to_sequence_len": True, "sequence_len": 32, "sample_packing": True}
    for name, other in {"two": {"micro_batch_size": 2}, "padded": padded}.items():
        found = first_factors(tmp_path / name, base, **settings, **other)
        for one, two in zip(found, expected, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


class StoppedError(Exception):
    """What stands for a killed process."""


@pytest.mark.parametrize(
    "start",
    [
        "eva",
        *(
            pytest.param(start, marks=pytest.mark.slow if start == "pissa" else pytest.mark.exhaustive)
            for start in ("loftq", "mica", "pissa", "corda", "lora_ga")
        ),
    ],
)
def test_a_started_adapter_goes_on_exactly(tmp_path: Path, start: str) -> None:
    base = llama(tmp_path / "base", attention_dropout=0.1)
    settings = {**LINEAR, "lora_dropout": 0.1, "peft_init_lora_weights": start}

    def run(folder: Path, report: Report) -> Path:
        given = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 1e-2, **settings}
        config = SftConfig(**given, num_epochs=2, save_steps=3, logging_steps=1)
        out = workspace(folder)
        sft(config, base, training_data(tmp_path / "rows", ROWS), None, out, report)
        return out.data

    def interrupt(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(tmp_path / "resumed", Report(interrupt))
    resumed, whole = Heard(), Heard()
    found, expected = run(tmp_path / "resumed", resumed.report), run(tmp_path / "whole", whole.report)
    assert min(resumed.steps("loss")) == 4
    assert folder_bytes(found) == folder_bytes(expected)
    assert "started from" not in said(resumed)
    assert ("started from" in said(whole)) == (start in FROM_DATA)


def test_sequences_that_no_start_looks_at_are_noted() -> None:
    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 0.1, "start_sequences": 2}
    assert [item.key for item in SftConfig(**lora).idle()] == ["start_sequences"]
    assert not list(SftConfig(**lora, peft_init_lora_weights="eva").idle())


def test_a_checkpoint_of_another_start_is_refused(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    saving = {**QUERIES, "steps": 2, "save_steps": 1, "save_strategy": None}
    train(tmp_path / "eva", base, **saving, peft_init_lora_weights="eva")
    train(tmp_path / "plain", base, **saving)
    started, plain = (str(next((tmp_path / name).rglob("checkpoint-1"))) for name in ("eva", "plain"))
    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "learning_rate": 0.1}

    def reasons(folder: str, start: object) -> str:
        config = SftConfig(**lora, peft_init_lora_weights=start, resume_from_checkpoint=folder)
        return " ".join(fault.reason for fault in config.faults())

    assert "its adapter started from data" in reasons(started, True)
    assert "its adapter did not start with eva" in reasons(plain, "eva")
    assert not reasons(started, "eva") and not reasons(plain, True)
    with pytest.raises(
        SettingError, match="its adapter started with eva, and peft_init_lora_weights is corda"
    ):
        train(
            tmp_path / "other", base, steps=3, **QUERIES, peft_init_lora_weights="corda",
            resume_from_checkpoint=started,
        )  # fmt: skip
    _, heard = train(
        tmp_path / "same", base, steps=3, **QUERIES, peft_init_lora_weights="eva",
        resume_from_checkpoint=started,
    )  # fmt: skip
    assert min(heard.steps("loss")) == 2


@pytest.mark.slow
def test_eva_starts_beside_a_base_in_4_bits(tmp_path: Path) -> None:
    base = llama(tmp_path / "base", dtype=torch.bfloat16)
    train_and_merge(tmp_path, base, bits=4, **LINEAR, peft_init_lora_weights="eva")


@pytest.mark.parametrize("start", FROM_DATA)
def test_pairs_start_too(tmp_path: Path, start: str) -> None:
    base = llama(tmp_path / "base")
    config = OrpoConfig(
        adapter="lora", lora_r=4, lora_alpha=8, learning_rate=1e-2, max_steps=2, peft_init_lora_weights=start,
        **QUERIES,
    )  # fmt: skip
    heard, out = Heard(), workspace(tmp_path / "orpo")
    orpo(config, base, preference_data(tmp_path / "pairs", echoes()[:4]), None, out, heard.report)
    merged(tmp_path / "merged", base, Adapter(out.data))
    assert f"{start}: started from 4 sequences of training data" in said(heard)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"peft_init_lora_weights": "eva", "lora_r": 100}, "fewer trained tokens|needs 2 times the rank"),
        (
            {"peft_init_lora_weights": "eva", "lora_r": 20, "start_sequences": 1},
            "Raise pipeline.start_sequences",
        ),
        ({"peft_init_lora_weights": "lora_ga", "lora_r": 40}, "needs 2 times the rank"),
        ({"peft_init_lora_weights": "corda", "lora_r": 80}, "needs 1 times the rank"),
        (
            {"peft_init_lora_weights": "corda", "lora_target_modules": ["embed_tokens"]},
            "and an embedding gets",
        ),
    ],
    ids=str,
)
def test_what_no_start_can_be_found_for(tmp_path: Path, settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        train(tmp_path / "a", llama(tmp_path / "base"), **{**QUERIES, **settings})


@pytest.mark.parametrize("start", ["loftq", *FROM_DATA, "mica"])
def test_modules_that_store_their_weights_the_other_way(tmp_path: Path, start: str) -> None:
    base = gpt2(tmp_path / "base", bare=False)
    settings = {"lora_target_modules": ["c_attn"], "peft_init_lora_weights": start}
    train_and_merge(tmp_path, base, **settings)


def test_olora_refuses_weights_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="olora: PEFT reads weights as"):
        train(
            tmp_path / "a", gpt2(tmp_path / "base", bare=False), lora_target_modules=["c_attn"],
            peft_init_lora_weights="olora",
        )  # fmt: skip


def test_mica_trains_the_first_factors_alone(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    settings = {**LINEAR, "peft_init_lora_weights": "mica", "lora_alpha": 32}
    data, trained, _ = train_and_merge(tmp_path, base, steps=60, **settings)
    a, b = factors_of(Adapter(tmp_path / "trained" / "data"))
    left, _, _ = torch.linalg.svd(weights_of(base.path)[Q_PROJ])
    torch.testing.assert_close((b.T @ left[:, -4:]).abs(), torch.eye(4), rtol=0, atol=1e-3)
    assert trained.steps("loss")[60] < 0.3 * trained.steps("loss")[1] and bool(a.any())
    torch.testing.assert_close(weights_of(data)[Q_PROJ], weights_of(base.path)[Q_PROJ] + 8 * b @ a)
    # Trained further, the second factors still stay.
    further: dict[str, Any] = {
        "lora_r": None,
        "lora_alpha": None,
        "lora_model_dir": str(tmp_path / "trained" / "data"),
    }
    again, _ = train(tmp_path / "again", base, **further)
    assert torch.equal(factors_of(again)[1], b) and not torch.equal(factors_of(again)[0], a)
