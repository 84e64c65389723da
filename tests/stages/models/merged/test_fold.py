"""Folding is what PEFT's merge_and_unload makes of the model in float32, rounded once, whatever the shards."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from stages.models.merged.test_merge import make_adapter, run
from support.tiny_model import VOCABULARY, make_model
from support.tiny_tokenizer import make_tokenizer
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EXPERTS = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}


def mixture(folder: Path, **_settings: Any) -> Path:
    """A tiny Qwen3 with four experts in each layer; its files hold each expert by itself."""
    torch.manual_seed(0)
    config = Qwen3MoeConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        initializer_range=0.2, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder, max_shard_size="40KB")
    make_tokenizer(folder)
    return folder


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor for path in folder.glob("model*.safetensors") for name, tensor in load_file(path).items()
    }


CASES: list[Any] = [
    pytest.param(make_model, {"use_dora": True, "target_modules": LINEAR}, id="dora"),
    pytest.param(
        make_model,
        {"use_dora": True, "use_rslora": True, "target_modules": ["embed_tokens", "q_proj"]},
        id="dora embeddings",
    ),
    pytest.param(make_model, {"trainable_token_indices": [3, 7, 5]}, id="tokens"),
    pytest.param(mixture, EXPERTS, id="experts"),
    pytest.param(mixture, {**EXPERTS, "use_rslora": True, "alpha_pattern": {"down_proj": 2}}, id="experts, patterns"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "lora"), CASES)
def test_it_is_what_peft_makes(tmp_path: Path, make: Any, lora: dict[str, Any]) -> None:
    base = make(tmp_path / "base", dtype=torch.bfloat16, max_shard_size="40KB")
    adapter = make_adapter(tmp_path / "adapter", base, **lora)
    data, heard = run(tmp_path / "out", base, adapter)
    assert heard.of("progress"), "tensor by tensor, not in the loaded model"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, adapter.path).merge_and_unload().to(torch.bfloat16)
    merged.save_pretrained(tmp_path / "peft")
    expected, found, before = (tensors_of(folder) for folder in (tmp_path / "peft", data, base))
    assert found.keys() == expected.keys() == before.keys()
    off = 0
    for name, tensor in expected.items():
        # Halves in float32 may fall to either side: the numbers are neighbours in bfloat16 then.
        apart = (found[name].view(torch.int16).int() - tensor.view(torch.int16).int()).abs()
        assert int(apart.max()) <= 1, name
        off += int(apart.sum())
    assert off <= 1e-4 * sum(tensor.numel() for tensor in expected.values())
    assert any(not torch.equal(found[name], before[name]) for name in found)


@pytest.mark.parametrize("lora", [{"use_dora": True}, {"trainable_token_indices": [3, 7]}], ids=str)
def test_shards_change_no_byte(tmp_path: Path, lora: dict[str, Any]) -> None:
    one = make_model(tmp_path / "one", tie_word_embeddings=True)
    several = make_model(tmp_path / "several", tie_word_embeddings=True, max_shard_size="30KB")
    adapter = make_adapter(tmp_path / "adapter", one, **lora)
    found = [tensors_of(run(tmp_path / f"out {base.name}", base, adapter)[0]) for base in (one, several)]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(tensor, found[1][name]) for name, tensor in found[0].items())


CHILD = """
import sys
from pathlib import Path
from stages.models.merged.test_merge import run
from tunemill.stages.artifacts import Adapter

def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024

before = peak()
run(Path(sys.argv[3]), Path(sys.argv[1]), Adapter(Path(sys.argv[2])))
print(before, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux for the peak")
def test_the_memory_of_two_layers_is_enough(tmp_path: Path) -> None:
    # 24 layers of 12.6 MB: 302 MB in bfloat16, and 604 MB in float32, of which the proof would need two.
    sizes = {"hidden_size": 512, "intermediate_size": 3072, "num_hidden_layers": 24, "num_attention_heads": 8}
    # With the weights of a real model: so many as wide as those of tiny ones add roundings up beyond the bound.
    settings = {"num_key_value_heads": 8, "initializer_range": 0.02, "max_shard_size": "50MB"}
    base = make_model(tmp_path / "base", dtype=torch.bfloat16, **settings, **sizes)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert 270e6 < size < 350e6
    adapter = make_adapter(tmp_path / "adapter", base, spread=0.02)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(base), str(adapter.path), str(tmp_path / "out")],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    before, peak = map(int, done.stdout.split())
    assert peak - before < 0.6 * size / 2**20, "less than the model itself"
