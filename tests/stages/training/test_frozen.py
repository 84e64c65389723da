"""A part of the weights is trained, the rest stays bit for bit; LISA and Spectrum learn, and resume exactly."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_model import (
    Heard,
    folder_bytes,
    make_model,
    random_rows,
    tiny_config,
    training_data,
    workspace,
)
from transformers import AutoModelForCausalLM

from tunemill.stages.artifacts import Model
from tunemill.stages.errors import SettingError
from tunemill.stages.training.frozen_body import drawn_layers
from tunemill.stages.training.keys.frozen import read_pattern
from tunemill.stages.training.sft.body import sft
from tunemill.stages.training.sft.config import SftConfig
from tunemill.stages.training.spectrum_body import most_telling, signal_to_noise


@pytest.fixture
def base(tmp_path: Path) -> Model:
    return Model(make_model(tmp_path / "base", num_hidden_layers=4))


def train(base: Model, folder: Path, **keys: Any) -> tuple[Path, Heard]:
    """Train on a few rows again and again; the trained model's folder, and what was reported."""
    heard, out = Heard(), workspace(folder)
    settings = {"learning_rate": 3e-3, "max_steps": 8, "logging_steps": 1, "weight_decay": 0.1, **keys}
    data = training_data(folder / "rows", random_rows(4))
    sft(SftConfig(**settings), base, data, None, out, heard.report)
    return out.data, heard


def moved(base: Model, trained: Path) -> dict[str, Any]:
    """Parameter -> which of its rows differ."""
    before, after = load_file(base.path / "model.safetensors"), load_file(trained / "model.safetensors")
    return {name: (before[name] != after[name]).reshape(len(before[name]), -1).any(1) for name in before}


def test_only_what_matches_is_trained_and_of_rows_only_those(base: Model, tmp_path: Path) -> None:
    patterns = [
        "^model.embed_tokens.weight$[:10]",
        "^model.embed_tokens.weight$[20]",
        "layers.[23].mlp",
        "lm_head",
    ]
    data, heard = train(base, tmp_path / "run", unfrozen_parameters=patterns)
    rows = moved(base, data)
    assert {name for name, changed in rows.items() if changed.any()} == {
        "model.embed_tokens.weight", "lm_head.weight",
        *(f"model.layers.{n}.mlp.{part}_proj.weight" for n in (2, 3) for part in ("gate", "up", "down")),
    }  # fmt: skip
    changed = rows["model.embed_tokens.weight"].nonzero().flatten().tolist()
    assert changed and set(changed) <= {*range(10), 20}
    losses = heard.steps("loss")
    assert losses[8] < losses[1] - 0.1


def test_frozen_rows_do_not_shorten_the_gradient_of_the_others(base: Model, tmp_path: Path) -> None:
    """With the whole tensor's gradient in the norm, clipping would scale the rows that are trained."""
    keys = {
        "max_steps": 1,
        "optimizer": "sgd",
        "lr_scheduler": "constant",
        "weight_decay": 0,
        "max_grad_norm": 0,
    }
    _, whole = train(base, tmp_path / "a", unfrozen_parameters=["^lm_head.weight$"], **keys)
    _, part = train(base, tmp_path / "b", unfrozen_parameters=["^lm_head.weight$[0:5]"], **keys)
    assert part.steps("grad_norm")[1] < whole.steps("grad_norm")[1] / 2


@pytest.mark.parametrize(
    ("patterns", "words"),
    [
        (["nothing.like.it"], "matches no parameter"),
        (["^lm_head.weight$[0:999999]"], "has 416 rows"),
    ],
)
def test_a_pattern_without_a_parameter_is_refused(
    base: Model, tmp_path: Path, patterns: list[str], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        train(base, tmp_path / "run", unfrozen_parameters=patterns)


def test_a_tied_head_goes_by_both_of_its_names(tmp_path: Path) -> None:
    tied = Model(make_model(tmp_path / "base", tie_word_embeddings=True))
    data, _ = train(tied, tmp_path / "run", unfrozen_parameters=["^lm_head.weight$"], max_steps=2)
    assert {name for name, rows in moved(tied, data).items() if rows.any()} == {"model.embed_tokens.weight"}


@pytest.mark.parametrize(
    ("text", "pattern", "rows"),
    [
        ("^a.b$[:32000]", "^a.b$", (0, 32000)),
        ("^a.b$[5]", "^a.b$", (5, 6)),
        ("a.b[3:]", "a.b", (3, None)),
        ("layers.4[4-9]+.gate", "layers.4[4-9]+.gate", None),
        ("layers.[0]", "layers.[0]", None),
        ("model.language_model.*", "model.language_model.*", None),
    ],
)
def test_rows_are_told_from_sets_of_characters(text: str, pattern: str, rows: Any) -> None:
    found = read_pattern(text)
    assert (found.pattern, found.rows) == (pattern, rows)


def test_a_period_is_a_period_and_a_pattern_is_found_anywhere() -> None:
    assert read_pattern("layers.1.mlp").matches("model.layers.1.mlp.up_proj.weight")
    assert not read_pattern("layers.1.mlp").matches("model.layers.11mlp.weight")
    assert read_pattern("^model.language_model.*").matches("model.language_model.norm.weight")
    assert not read_pattern("^lm_head").matches("model.lm_head.weight")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"lisa_n_layers": 1}, "lisa_step_interval"),
        ({"unfrozen_parameters": ["a"], "spectrum_top_fraction": 0.5}, "Keep one"),
        ({"unfrozen_parameters": ["a["]}, "no valid regular expression"),
        ({"unfrozen_parameters": ["a$[4:4]"]}, "end before they begin"),
        ({"spectrum_top_fraction": 1.5}, "less than or equal to 1"),
    ],
)
def test_what_makes_no_sense_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SftConfig(learning_rate=1e-3, **keys)


def test_with_an_adapter_they_ask_for_nothing() -> None:
    lora = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True}
    config = SftConfig(learning_rate=1e-3, unfrozen_parameters=["^model.language_model.*"], **lora)
    assert [item.key for item in config.idle()] == ["unfrozen_parameters"]


def test_lisa_trains_a_few_layers_at_a_time_and_learns(base: Model, tmp_path: Path) -> None:
    keys = {"lisa_n_layers": 1, "lisa_step_interval": 2, "seed": 7}
    data, heard = train(base, tmp_path / "run", **keys)
    drawn = {layer for period in range(4) for layer in drawn_layers(7, period, 1, 4)}
    assert 1 <= len(drawn) < 4, "choose another seed: this test wants a layer that is never drawn"
    changed = {name for name, rows in moved(base, data).items() if rows.any()}
    assert {int(name.split(".")[2]) for name in changed if ".layers." in name} == drawn
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= changed
    losses = heard.steps("loss")
    assert losses[8] < losses[1] - 0.1


def test_lisa_draws_other_layers_each_time_and_every_layer_some_time() -> None:
    draws = [tuple(drawn_layers(42, period, 2, 8)) for period in range(40)]
    assert len(set(draws)) > 10 and {layer for drawn in draws for layer in drawn} == set(range(8))
    assert all(len(set(drawn)) == 2 for drawn in draws)


def test_lisa_names_what_it_cannot_find(base: Model, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"It has model\.layers"):
        train(
            base, tmp_path / "a", lisa_n_layers=1, lisa_step_interval=1, lisa_layers_attribute="model.blocks"
        )
    with pytest.raises(SettingError, match="the model has 4 layers"):
        train(base, tmp_path / "b", lisa_n_layers=5, lisa_step_interval=1)


@pytest.mark.slow
def test_an_interrupted_lisa_goes_on_with_the_same_layers(base: Model, tmp_path: Path) -> None:
    keys = {"lisa_n_layers": 1, "lisa_step_interval": 3, "save_steps": 4, "max_steps": 10}
    whole, _ = train(base, tmp_path / "whole", **keys)

    class StopError(Exception):
        """The run is over in the middle of a period."""

    heard, out = Heard(), workspace(tmp_path / "cut")
    data = training_data(tmp_path / "cut" / "rows", random_rows(4))
    settings = {"learning_rate": 3e-3, "logging_steps": 1, "weight_decay": 0.1, **keys}

    def stop(event: dict[str, Any]) -> None:
        if event["type"] == "step" and event["step"] == 5:
            raise StopError

    with pytest.raises(StopError):
        sft(SftConfig(**settings), base, data, None, out, type(heard.report)(stop))
    sft(SftConfig(**settings), base, data, None, out, heard.report)
    assert min(heard.steps("loss")) == 5
    assert folder_bytes(out.data) == folder_bytes(whole)


def test_signal_to_noise_by_hand() -> None:
    # Singular values 1..4 of a square matrix: quartiles 1.75 and 3.25, deviation 1.5 / 1.349 = 1.112, edge 2.224.
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0]))
    assert signal_to_noise(weight) == pytest.approx((4 + 3) / (2 + 1) / 4)


def test_spectrum_finds_the_module_with_a_few_strong_directions() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(num_hidden_layers=4))
    left, _ = torch.linalg.qr(torch.randn(32, 32))
    values = torch.tensor([1.0] * 7 + [0.01] * 25)
    with torch.no_grad():
        model.model.layers[2].self_attn.q_proj.weight.copy_(left * values)
    chosen = most_telling(model, 0.25)
    assert [name for name in chosen if name.endswith("q_proj")] == ["model.layers.2.self_attn.q_proj"]
    assert len(chosen) == 7 and not any("lm_head" in name for name in chosen)


def test_spectrum_trains_these_and_the_ends(base: Model, tmp_path: Path) -> None:
    data, heard = train(base, tmp_path / "run", spectrum_top_fraction=0.5)
    changed = {name.removesuffix(".weight") for name, rows in moved(base, data).items() if rows.any()}
    model = AutoModelForCausalLM.from_pretrained(base.path)
    assert changed == {*most_telling(model, 0.5), "model.embed_tokens", "lm_head"}
    losses = heard.steps("loss")
    assert losses[8] < losses[1] - 0.1
