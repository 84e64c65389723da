"""An adapter as a file of its own adds what PEFT adds; one that llama.cpp cannot load is refused."""

import json

import gguf
import numpy as np
import pytest
from peft import LoraConfig, get_peft_model
from stages.models.exported_gguf.adapters import make_adapter
from support.gguf_files import exported, make_family, rewritten
from transformers import AutoModelForCausalLM

from tunemill.stages.errors import SettingError, UserError
from tunemill.stages.models.exported_gguf.proof_adapter_body import check_factors, prove_adapter
from tunemill.stages.models.gguf_reading_body import read_file
from tunemill.stages.models.rounded_body import with_adapter


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    base = make_family(folder / "base", "llama")
    settings = {
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"layers.1.mlp.up_proj": 3},
    }
    adapter = make_adapter(folder / "adapter", base, **settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        file, heard = exported(folder, base, "f32", adapter)
    return base, adapter, file, heard.summary


def test_every_module_is_there_with_the_scale_of_its_own(made):
    _, _, file, summary = made
    assert summary["modules_compared"] == 4 * 7 and summary["proof"] == "partial"
    assert summary["largest_share_of_change_off"] < 1e-6
    says = read_file(file).says
    assert (says["general.type"], says["adapter.type"], says["adapter.lora.alpha"]) == (
        "adapter",
        "lora",
        8.0,
    )


def changed(file, target, name, change):
    data = next(np.array(t.data) for t in gguf.GGUFReader(file).tensors if t.name == name)
    return rewritten(file, target, tensors={name: change(data)})


FAULTS = [
    (lambda file, target: changed(file, target, "blk.2.attn_q.weight.lora_b", lambda rows: rows[::-1].copy()),
     r"model.layers.2.self_attn.q_proj: what the file adds is"),
    (lambda file, target: rewritten(file, target, says={"adapter.lora.alpha": 16.0}), r"what the file adds is 1 of"),
    (lambda file, target: rewritten(file, target, tensors={f"blk.3.ffn_up.weight.lora_{part}": None for part in "ab"}),
     r"model.layers.3.mlp.up_proj is changed in the adapter, and not in the file"),
]  # fmt: skip


@pytest.mark.parametrize(("plant", "said"), FAULTS)
def test_a_planted_fault_is_caught_and_named(made, tmp_path, plant, said, monkeypatch):
    monkeypatch.setenv("PATH", "")
    base, adapter, file, _ = made
    broken = plant(file, tmp_path / "broken.gguf")
    with pytest.raises(UserError, match=said):
        prove_adapter(base, adapter, broken, "f32", lambda _: None, tmp_path)


def test_an_adapter_that_changes_nothing_is_refused(made, tmp_path):
    base, _, file, _ = made
    model = AutoModelForCausalLM.from_pretrained(base)
    get_peft_model(model, LoraConfig(r=4, target_modules=["v_proj"], task_type="CAUSAL_LM")).save_pretrained(
        tmp_path / "fresh"
    )
    adapted = with_adapter(AutoModelForCausalLM.from_pretrained(base), tmp_path / "fresh")
    keep = {tensor.name: None for tensor in gguf.GGUFReader(file).tensors if "attn_v" not in tensor.name}
    zeros = {t.name: np.zeros_like(t.data) for t in gguf.GGUFReader(file).tensors if "attn_v" in t.name}
    still = rewritten(file, tmp_path / "still.gguf", tensors={**keep, **zeros})
    with pytest.raises(UserError, match="the adapter changes nothing"):
        check_factors(adapted, read_file(still), "f32")


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"use_dora": True}, "peft_use_dora"), ({"modules_to_save": ["lm_head"]}, "lora_modules_to_save")],
)
def test_what_llama_cpp_cannot_load_is_refused(made, tmp_path, settings, key):
    base, adapter, _, _ = made
    stored = json.loads((adapter / "adapter_config.json").read_text())
    other = tmp_path / "adapter"
    other.mkdir()
    (other / "adapter_config.json").write_text(json.dumps({**stored, **settings}))
    with pytest.raises(SettingError, match=f"it trains what {key} asks for"):
        exported(tmp_path, base, "f16", other)
