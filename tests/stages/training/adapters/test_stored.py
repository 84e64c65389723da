"""A stored adapter is trained further: from where it ended, on its own base, as it was shaped."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stages.training.adapters.adapted import LINEAR, llama, merged, train
from support.pairs import echoes, preference_data
from support.project import make_project
from support.tiny_model import Heard, workspace

from tunemill.pipelines.graph.load import load_pipeline
from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.memory import Above
from tunemill.stages.registry import METHODS
from tunemill.stages.training.estimate_body import with_stored_adapter
from tunemill.stages.training.orpo.body import orpo
from tunemill.stages.training.orpo.config import OrpoConfig
from tunemill.stages.training.sft.config import SftConfig

WEIGHTS = "adapter_model.safetensors"
LOFTQ = {"peft_init_lora_weights": "loftq"}


def faults(folder: Path, **settings: Any) -> dict[str, str]:
    given = {"adapter": "lora", "learning_rate": 0.1, "lora_model_dir": str(folder), **settings}
    return {fault.key: fault.reason for fault in SftConfig(**given).faults()}


@pytest.mark.parametrize(
    "kind",
    [
        {},
        pytest.param({"peft_use_dora": True}, marks=pytest.mark.exhaustive),
        pytest.param({"peft_init_lora_weights": "pissa"}, marks=pytest.mark.slow),
        pytest.param(LOFTQ, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_it_goes_on_where_the_adapter_ended(tmp_path: Path, kind: dict[str, Any]) -> None:
    base = llama(tmp_path / "base")
    first, heard = train(tmp_path / "first", base, steps=20, **LINEAR, **kind)
    before, ended = (heard.steps("loss")[step] for step in (1, 20))
    further: dict[str, Any] = {"lora_model_dir": str(first.path), "lora_r": None, "lora_alpha": None}
    second, heard = train(tmp_path / "second", base, steps=20, **further)
    assert heard.steps("loss")[1] < before - 0.8 * (before - ended)
    assert heard.steps("loss")[20] < ended
    old, new = load_file(first.path / WEIGHTS), load_file(second.path / WEIGHTS)
    assert old.keys() == new.keys() and all(old[name].shape == new[name].shape for name in old)
    _, heard = merged(tmp_path / "merged", base, second)
    assert heard.summary["max_abs_logit_difference"] <= heard.summary["logit_tolerance"]


def test_the_stored_adapter_decides(tmp_path: Path) -> None:
    folder = train(tmp_path / "first", llama(tmp_path / "base"), steps=1, lora_target_modules=["q_proj"])[
        0
    ].path
    assert not faults(folder, lora_r=4, lora_alpha=8, lora_target_modules=["q_proj"])
    assert "8, but the adapter in lora_model_dir has 4" in faults(folder, lora_r=8)["lora_r"]
    assert "has ['q_proj']" in faults(folder, lora_target_modules=["v_proj"])["lora_target_modules"]
    assert "shapes a new adapter" in faults(folder, **LINEAR)["lora_target_linear"]
    assert "has False" in faults(folder, peft_use_dora=True)["peft_use_dora"]


def test_folders_that_hold_no_adapter(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    folder = train(tmp_path / "first", base, steps=1, lora_target_modules=["q_proj"])[0].path
    assert "no adapter_config.json" in faults(base.path)["lora_model_dir"]
    further: dict[str, Any] = {"lora_model_dir": str(folder), "lora_r": None, "lora_alpha": None}
    with pytest.raises(SettingError, match="not in both the adapter and the base model"):
        train(tmp_path / "other", llama(tmp_path / "shorter", num_hidden_layers=1), **further)
    stored = load_file(folder / WEIGHTS)
    save_file({name: tensor for name, tensor in stored.items() if "lora_A" in name}, folder / WEIGHTS)
    with pytest.raises(SettingError, match=r"lora_B.weight, .*: not in both"):
        train(tmp_path / "incomplete", base, **further)
    (folder / WEIGHTS).unlink()
    assert "pickled weights are not read" in faults(folder)["lora_model_dir"]
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "peft_type": "IA3"}))
    assert "of the kind IA3" in faults(folder)["lora_model_dir"]
    with pytest.raises(SettingError, match="no folder of an adapter"):
        train(tmp_path / "absent", base, lora_model_dir=str(tmp_path / "no such"))


@pytest.mark.slow
def test_every_method_takes_one_that_another_node_gives(tmp_path: Path) -> None:
    assert all("stored_adapter" in method.inputs for method in METHODS.values())
    base = llama(tmp_path / "base")
    first = train(tmp_path / "first", base, steps=1, lora_target_modules=["q_proj"])[0]
    config = OrpoConfig(
        adapter="lora", has_stored_adapter=True, learning_rate=1e-30, max_steps=1, save_strategy="no"
    )
    out = workspace(tmp_path / "orpo")
    pairs = preference_data(tmp_path / "pairs", echoes("ab"))
    orpo(config, base, pairs, None, out, Heard().report, stored_adapter=first)
    old, new = load_file(first.path / WEIGHTS), load_file(out.data / WEIGHTS)
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in old)


def test_an_estimate_takes_the_one_that_another_node_gives() -> None:
    config = SftConfig(adapter="lora", has_stored_adapter=True, learning_rate=0.1)
    with pytest.raises(UserError, match="its adapter is not on this machine yet"):
        with_stored_adapter(config, {"sft.stored_adapter": Above({})})
    found = with_stored_adapter(config, {"sft.stored_adapter": Above({}, "/there")})
    assert found.lora_model_dir == "/there"


def test_its_contents_are_in_the_key(tmp_path: Path) -> None:
    adapter = train(tmp_path / "first", llama(tmp_path / "llama"), steps=1, lora_target_modules=["q_proj"])[
        0
    ].path
    project = make_project(
        tmp_path / "project",
        lora_r=None,
        lora_alpha=None,
        lora_target_linear=None,
        lora_model_dir=str(adapter),
    )

    # What is a source of a node enters its key by contents.
    assert load_pipeline(project.yaml).node("trained").sources == {"lora_model_dir": [str(adapter)]}
