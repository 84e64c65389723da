"""Faults of merging, each planted in a copy of what was merged: the proof says what is wrong."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stages.models.merged.test_merge import make_adapter, run
from support.tiny_model import make_model

from tunemill.stages.errors import SourceError, UserError
from tunemill.stages.models.merged.proof_body import Proof, prove

Tensors = dict[str, torch.Tensor]
LAST = "model.layers.1.mlp.down_proj.weight"
EMBEDDINGS = "model.embed_tokens.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in bfloat16, an adapter that moves its weights by a few percent, and the merged model."""
    folder = tmp_path_factory.mktemp("made")
    base = make_model(folder / "base", dtype=torch.bfloat16)
    run(folder / "out", base, make_adapter(folder / "adapter", base, spread=0.05))
    return folder


def proven(folder: Path, merged: Path) -> Proof:
    return prove(folder / "base", None, folder / "adapter", merged, onto_quantized=False)


@dataclass(frozen=True)
class Made:
    """What a fault is planted in: tensors of the base and of the merged model, and the adapter's folder."""

    base: Tensors
    merged: Tensors
    adapter: Path


def added(made: Made, times: float) -> Tensors:
    """The merged tensors with the adapter's changes so many times."""
    factors = load_file(made.adapter / "adapter_model.safetensors")
    found = dict(made.merged)
    for name in factors:
        if name.endswith(".lora_A.weight"):
            place = name.removeprefix("base_model.model.").replace(".lora_A", "")
            change = factors[name.replace("lora_A", "lora_B")] @ factors[name]
            found[place] = (made.base[place].float() + 2 * times * change).to(torch.bfloat16)
    return found


def replaced(merged: Tensors, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Tensors:
    return {**merged, name: change(merged[name]).contiguous()}


def one_number(tensor: torch.Tensor) -> torch.Tensor:
    found = tensor.clone()
    found[3, 5] *= 1.02
    return found


FAULTS: list[Any] = [
    pytest.param(
        lambda made: made.base,
        r"the adapter is not in it: all 4 tensors that it changes are those of the base, first model.layers.0",
        id="adapter ignored",
    ),
    pytest.param(
        lambda made: added(made, 2),
        r"q_proj.weight and 1 more: the adapter was added twice there",
        id="adapter twice",
    ),
    pytest.param(
        lambda made: added(made, 0.5),
        r"the adapter's change was added 0.5 times there. Its lora_alpha, or its rank",
        id="wrong alpha",
    ),
    pytest.param(
        lambda made: {**made.merged, LAST: made.base[LAST]},
        rf"merged: {LAST}: the adapter's change is missing there. The other 3 have theirs",
        id="one layer missing",
    ),
    pytest.param(
        lambda made: replaced(made.merged, LAST, one_number),
        rf"merged: {LAST}: not what base and adapter give \(1 of 2048 numbers differ",
        id="one number",
    ),
    pytest.param(
        lambda made: replaced(made.merged, NORM, lambda norm: norm * 1.01),
        rf"merged: {NORM}: not the base's, and the adapter does not change it .* another revision of it",
        id="another norm",
    ),
    pytest.param(
        lambda made: replaced(made.merged, EMBEDDINGS, lambda rows: rows.roll(1, 0)),
        rf"{EMBEDDINGS}: its rows are in another order than in the base: row 0 is row 415 of the base",
        id="permuted embeddings",
    ),
    pytest.param(
        lambda made: replaced(made.merged, "lm_head.weight", lambda _: made.base[EMBEDDINGS]),
        r"the output head lm_head.weight is not that of base and adapter: .* A head that was tied .* lost",
        id="another head",
    ),
    pytest.param(
        lambda made: {n: t for n, t in made.merged.items() if n != "lm_head.weight"},
        r"lm_head.weight: not in its files, and tied to no other weight",
        id="head lost",
    ),
]


def test_without_a_fault(made: Path) -> None:
    proof = proven(made, made / "out" / "data")
    # Every tensor of the base, four of which the adapter changes.
    assert (proof.tensors, proof.adapted) == (21, 4)
    assert 0 < proof.layer_difference < proof.layer_tolerance < 0.1
    assert 0 < proof.difference < proof.change


@pytest.mark.parametrize(("plant", "message"), FAULTS)
def test_a_fault_is_named(made: Path, tmp_path: Path, plant: Any, message: str) -> None:
    merged = shutil.copytree(made / "out" / "data", tmp_path / "merged")
    tensors = [load_file(folder / "model.safetensors") for folder in (made / "base", merged)]
    save_file(plant(Made(*tensors, made / "adapter")), merged / "model.safetensors", {"format": "pt"})
    with pytest.raises((UserError, SourceError), match=message):
        proven(made, merged)


def test_another_revision_of_the_base(made: Path, tmp_path: Path) -> None:
    # The same adapter is merged onto a base that was trained a little further.
    other = shutil.copytree(made / "base", tmp_path / "base")
    tensors = load_file(other / "model.safetensors")
    torch.manual_seed(1)
    moved = {n: (t.float() + 0.01 * torch.randn(t.shape)).to(t.dtype) for n, t in tensors.items()}
    save_file(moved, other / "model.safetensors", {"format": "pt"})
    shutil.copytree(made / "adapter", tmp_path / "adapter")
    shutil.copytree(made / "out" / "data", tmp_path / "merged")
    with pytest.raises(UserError, match=r"The adapter was merged into another base, or another revision"):
        proven(tmp_path, made / "out" / "data")


def test_a_head_that_parted_from_tied_embeddings_is_lost(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tie_word_embeddings=True)
    data, _ = run(
        tmp_path / "out", base, make_adapter(tmp_path / "adapter", base, modules_to_save=["lm_head"])
    )
    assert proven(tmp_path, data).adapted == 5
    tensors, config = load_file(data / "model.safetensors"), json.loads((data / "config.json").read_text())
    del tensors["lm_head.weight"]
    save_file(tensors, data / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match=r"lm_head.weight: not in its files"):
        proven(tmp_path, data)
    (data / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UserError, match=r"the output head lm_head.weight is not that of base and adapter"):
        proven(tmp_path, data)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (1, r"merged: model.norm stands where base and adapter have model.layers.1: it has other layers"),
        (3, r"merged: .*model.layers.2"),
    ],
)
def test_another_number_of_layers(made: Path, tmp_path: Path, layers: int, message: str) -> None:
    merged = shutil.copytree(made / "out" / "data", tmp_path / "merged")
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    with pytest.raises((UserError, SourceError), match=message):
        proven(made, merged)


def test_settings_of_another_model_are_found_by_what_layers_compute(made: Path, tmp_path: Path) -> None:
    merged = shutil.copytree(made / "out" / "data", tmp_path / "merged")
    config = json.loads((merged / "config.json").read_text())
    (merged / "config.json").write_text(json.dumps({**config, "num_attention_heads": 1, "head_dim": 32}))
    with pytest.raises(UserError, match=r"model.layers.0"):
        proven(made, merged)
    (merged / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    with pytest.raises(UserError, match=r"merged: model.layers.0 computes something else than with base"):
        proven(made, merged)
